"""Fidelity of made-up sets: copies, another look, refusals, and what the files say."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from didgen.data.files import read_json, write_png
from didgen.data.manifest import write_manifest
from didgen.stages.fidelity import Config, run
from didgen.stages.fidelity_sets import load_sets, match_classes

FAST = {"pairs": 4, "repeats": 10, "splits": 2, "neighbours": 2, "pair_side": 176}


def blobs(
    folder: Path, name: str, labels: list[str], tone: int, seed: int, masks: bool = False
) -> Path:
    """Noisy discs on a ground of the given brightness."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:32, :32]
    table = []
    for k, label in enumerate(labels):
        own = f"{name}_{k}"
        disc = (rows - rng.uniform(10, 22)) ** 2 + (cols - 16) ** 2 < rng.uniform(5, 12) ** 2
        image = rng.integers(tone, tone + 40, (32, 32, 3)).astype(np.uint8)
        image[disc] //= 2
        write_png(folder / "images" / f"{own}.png", image)
        if masks:
            write_png(folder / "masks" / f"{own}.png", disc)
        table.append({
            "id": own, "image": f"images/{own}.png", "mask": f"masks/{own}.png" if masks else "",
            "label": label, "split": "test", "lesion_id": own, "patient_id": "", "source": "test",
            "width": 32, "height": 32, "sha256": "",
        })  # fmt: skip
    write_manifest(pd.DataFrame(table), folder / f"{name}.csv")
    return folder / f"{name}.csv"


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sets")
    labels = ["MEL", "NV"] * 16
    return {
        "real": blobs(folder, "real", labels, 150, 0),
        "alike": blobs(folder, "alike", labels, 150, 1),
        "dark": blobs(folder, "dark", labels, 10, 2),
        "few": blobs(folder, "few", ["MEL"] * 6 + ["BCC"] * 4, 150, 3),
        "pairs": blobs(folder, "pairs", [""] * 8, 150, 4, masks=True),
        "masked": blobs(folder, "masked", ["NV"] * 8, 150, 5, masks=True),
    }


def config(sets: dict[str, Path], made: str, out: Path, real: str = "real", **changes) -> Config:
    return Config(
        synthetic=sets[made], test=sets[real], train=sets["masked"], out=out, **(FAST | changes)
    )


def measures(out: Path, made: str = "images") -> dict:
    own = read_json(out / "fidelity.json")["sets"][made]
    return own["spaces"]["efficientnet-lite0"]["measures"]


def test_another_look_is_far_and_one_alike_is_not(sets, tmp_path):
    for made in ("alike", "dark"):
        run(config(sets, made, tmp_path / made))
    alike, dark = (measures(tmp_path / made) for made in ("alike", "dark"))
    distance = "kernel distance (EfficientNet-Lite0)"
    assert dark[distance]["interval"][0] > alike[distance]["interval"][1]
    assert dark[distance]["value"] > 10 * dark[distance]["matched"]["real"]["mean"]
    assert dark["precision"]["value"] < 0.1 < 0.5 < alike["precision"]["value"]
    assert 0 <= alike["recall"]["interval"][0] <= alike["recall"]["interval"][1] <= 1
    assert alike[distance]["matched"]["n"] == 16


def test_offline_numbers_are_not_called_fid_and_small_sets_are_refused(sets, tmp_path):
    run(config(sets, "alike", tmp_path))
    own = read_json(tmp_path / "fidelity.json")
    assert own["reference"] == "test"
    own = own["sets"]["images"]
    assert (own["n_real"], own["n_synthetic"], own["classes"]) == (32, 32, {"MEL": 16, "NV": 16})
    space = own["spaces"]["efficientnet-lite0"]
    assert not any("FID" in name or name == "KID" for name in space["measures"])
    told = space["refused"]["Fréchet distance (EfficientNet-Lite0)"]
    assert "32 real and 32 synthetic images, expected more than 1280" in told
    assert "kernel distance" in told
    assert "Fréchet distance (EfficientNet-Lite0), 8 principal components" in space["measures"]
    assert "bicubic" in space["preprocessing"]
    pairs = own["pairs"]["measures"]
    assert set(pairs) == {"MS-SSIM", "perceptual distance (EfficientNet-Lite0, not LPIPS)"}
    assert set(pairs["MS-SSIM"]) == {"synthetic", "real", "real and synthetic"}
    table = pd.read_csv(tmp_path / "measures.csv")
    assert {"set", "space", "measure", "value", "low", "high", "n_synthetic"} <= set(table)


def test_classes_are_matched_and_pairs_stand_apart(sets, tmp_path, caplog):
    real, made, told = load_sets(config(sets, "few", tmp_path))["images"]
    assert set(real["label"]) == set(made["label"]) == {"MEL"}
    assert (len(real), len(made), told["n_synthetic_there"]) == (6, 6, 10)
    found = load_sets(config(sets, "pairs", tmp_path, reference="train"))
    assert list(found) == ["pairs"]
    assert load_sets(config(sets, "pairs", tmp_path)) == {}
    assert "expected at least 4 of each" in caplog.text


def test_sets_too_small_to_compare_end_no_run(sets, tmp_path):
    run(config(sets, "pairs", tmp_path))
    assert read_json(tmp_path / "fidelity.json")["sets"] == {}
    assert pd.read_csv(tmp_path / "measures.csv").empty


def test_matching_takes_what_the_smaller_set_has():
    real = pd.DataFrame({"label": ["a"] * 5 + ["b"] * 2, "id": range(7)})
    made = pd.DataFrame({"label": ["a"] * 3 + ["b"] * 9 + ["c"], "id": range(13)})
    drawn = match_classes(real, made, seed=0)
    for frame in drawn:
        assert frame["label"].value_counts().to_dict() == {"a": 3, "b": 2}


def test_missing_weights_are_named_before_anything_is_read(sets, tmp_path):
    with pytest.raises(ValueError, match="inception: found no weights.*efficientnet-lite0"):
        run(config(sets, "alike", tmp_path, spaces=("inception",)))
