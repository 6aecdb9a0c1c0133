import numpy as np
import pytest

from didgen.stages import export
from tests.exports.conftest import MASKS

datasets = pytest.importorskip("datasets")


def opened(folder, tmp_path):
    return datasets.load_dataset(
        "imagefolder", data_dir=str(folder), cache_dir=str(tmp_path / "cache")
    )


def run(run_dir, out, **more):
    export.run(export.Config(format="imagefolder", run_dir=run_dir, out=out, **more))
    return out


def test_masks_come_back_as_images(run_dir, tmp_path, pixels):
    out = run(run_dir, tmp_path / "out")
    rows = {row["id"]: row for row in opened(out / "synthetic", tmp_path)["train"]}
    assert list(rows) == ["P_0", "P_1", "P_2", "P_image"] and not (out / "real").exists()
    for name, mask in zip(rows, MASKS.values(), strict=False):
        np.testing.assert_array_equal(np.asarray(rows[name]["mask"]), mask() * np.uint8(255))
        np.testing.assert_array_equal(np.asarray(rows[name]["condition"]), ~mask() * np.uint8(255))
        expected = pixels(run_dir / f"augment/images/{name}.png")
        np.testing.assert_array_equal(np.asarray(rows[name]["image"]), expected)
    assert rows["P_image"]["mask"] is None and rows["P_image"]["seed"] == 7


def test_real_images_have_their_splits_and_ids_stay_text(run_dir, tmp_path):
    real = opened(run(run_dir, tmp_path / "out", real=True) / "real", tmp_path)
    ids = {split: rows["id"] for split, rows in real.items()}
    assert {split: list(names) for split, names in ids.items()} == {
        "train": ["0012", "0013"], "validation": ["0014"], "test": ["0015"],
    }  # fmt: skip
    np.testing.assert_array_equal(
        np.asarray(real["test"][0]["mask"]), MASKS["with_hole"]() * np.uint8(255)
    )


def test_a_split_without_masks_beside_others_is_refused(run_dir, tmp_path):
    text = (run_dir / "data/val.csv").read_text()
    (run_dir / "data/val.csv").write_text(text.replace("masks/0014.png", ""))
    with pytest.raises(ValueError, match="found no mask in val and some in test, train"):
        run(run_dir, tmp_path / "out", real=True)
    assert not (tmp_path / "out").exists()
