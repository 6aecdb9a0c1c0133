"""Fidelity of made-up sets: copies, another look, refusals, and what the files say."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from didgen.data.images import read_image
from didgen.data.manifest import write_manifest
from didgen.metrics.half_samples import half_sample_intervals
from didgen.runtime.files import read_json, write_png
from didgen.stages.fidelity import Config, _measures, run
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


def test_swapped_sets_would_be_noticed(sets, tmp_path):
    """Copies of one real image: each believable, nearly all of the real ones missing."""
    folder = sets["real"].parent
    rng = np.random.default_rng(7)
    image = read_image(folder / "images" / "real_0.png").astype(int)
    table = pd.read_csv(sets["alike"], dtype=str, keep_default_na=False)
    for k in range(len(table)):
        noisy = (image + rng.integers(-2, 3, image.shape)).clip(0, 255).astype(np.uint8)
        write_png(folder / "images" / f"spot_{k}.png", noisy)
    table = table.assign(image=[f"images/spot_{k}.png" for k in range(len(table))])
    write_manifest(table, folder / "spot.csv")
    run(config(sets | {"spot": folder / "spot.csv"}, "spot", tmp_path))
    found = measures(tmp_path)
    assert found["precision"]["value"] > 0.9
    assert found["recall"]["value"] < 0.2
    assert found["coverage"]["value"] < 0.3


def test_a_lesion_with_most_of_the_images_leaves_too_few_in_a_half():
    rng = np.random.default_rng(0)
    real, made = rng.normal(size=(2, 32, 16))
    lesions = np.array([0] * 26 + [1, 2, 3, 4, 5, 6])
    space = SimpleNamespace(kernel="kernel", distance="distance", dims=16)
    found, biased, refused = _measures(space, real, made, lesions, SimpleNamespace(neighbours=2))
    # Halves of 3 lesions in 8 axes and in 16 dimensions follow no line in 1 / N.
    assert biased == []
    assert "as few as 3, expected more than 4" in refused["precision, recall, density, coverage"]
    assert "precision" not in half_sample_intervals(
        found, real, made, lesions, confidence=0.95, repeats=100, seed=0
    )


def test_kinds_without_a_pair_are_named(sets, tmp_path, caplog):
    one_each = blobs(tmp_path, "one", ["MEL", "NV", "BCC", "DF"], 150, 9)
    same = sets | {
        "one": one_each,
        "again": blobs(tmp_path, "again", ["MEL", "NV", "BCC", "DF"], 150, 8),
    }
    run(config(same, "again", tmp_path / "out", real="one"))
    pairs = read_json(tmp_path / "out" / "fidelity.json")["sets"]["images"]["pairs"]
    assert set(pairs["measures"]["MS-SSIM"]) == {"real and synthetic"}
    assert len(pairs["refused"]) == 2
    assert "pairs, synthetic: found no two images of one class" in caplog.text


def test_matching_takes_what_the_smaller_set_has():
    real = pd.DataFrame({"label": ["a"] * 5 + ["b"] * 2, "id": range(7)})
    made = pd.DataFrame({"label": ["a"] * 3 + ["b"] * 9 + ["c"], "id": range(13)})
    drawn = match_classes(real, made, seed=0)
    for frame in drawn:
        assert frame["label"].value_counts().to_dict() == {"a": 3, "b": 2}


def test_missing_weights_are_named_before_anything_is_read(sets, tmp_path):
    with pytest.raises(ValueError, match="inception: found no weights.*efficientnet-lite0"):
        run(config(sets, "alike", tmp_path, spaces=("inception",)))
