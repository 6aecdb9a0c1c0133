import pandas as pd

from didgen.data.preparation import Prepared
from didgen.data.summary import summary


def test_the_summary_counts_what_was_prepared():
    n = 14
    frame = pd.DataFrame(
        {
            "id": [f"i{k}" for k in range(n)],
            "split": ["train"] * 12 + ["val", "test"],
            "label": ["NV", ""] * 7,
            "mask": ["", "m.png"] * 7,
            "lesion_id": ["L"] * 2 + [""] * 12,
            "patient_id": "",
            "cluster": ["c", "c"] + [""] * 12,
            "source": ["ISIC 2018 Task 3"] * 10 + ["mine"] * 4,
        }
    )
    prepared = [
        Prepared({}, (450, 600 + 10 * max(0, k - 2)), ("turned as EXIF says",) * (k == 0), b"",
                 None, 0.25 if k % 2 else None)
        for k in range(n)
    ]  # fmt: skip
    told = summary(frame, prepared, {"over max_masks": 1}, "table")
    assert told["n_images"] == 14 and told["n_with_mask"] == 7 == told["n_with_label"]
    assert (told["n_lesions"], told["n_patients"], told["n_clusters"]) == (1, 0, 1)
    assert told["splits"] == {
        "train": {"NV": 6, "mask only": 6}, "val": {"NV": 1}, "test": {"mask only": 1},
    }  # fmt: skip
    assert told["changes"] == {"turned as EXIF says": 1}
    known, mine = told["sources"]
    assert known["name"] == "ISIC 2018 Task 3" and known["n"] == 10
    assert "NC" in known["licence"] and known["citation"]
    assert mine == {"name": "mine", "licence": "", "citation": "", "n": 4}
    assert told["mask_area"] == {"train": [0.25] * 6, "val": [], "test": [0.25]}
    sizes = told["original_sizes"]
    assert sizes[0] == {"width": 600, "height": 450, "n": 3} and len(sizes) == 11
    assert sizes[-1] == {"width": None, "height": None, "n": 2}
