"""By nnU-Net's documented rules: the package itself is too large for a test."""

import json

import numpy as np
import pandas as pd
import pytest

from didgen.stages import export
from tests.exports.conftest import MASKS


def run(run_dir, out, **more):
    export.run(export.Config(format="nnunet", run_dir=run_dir, out=out, **more))
    raw, split = out / "nnUNet_raw/Dataset500_DiDGen", out / "nnUNet_preprocessed/Dataset500_DiDGen"
    return raw, json.loads((split / "splits_final.json").read_text())


def stems(folder):
    return sorted(path.name.removesuffix(".png") for path in folder.glob("*.png"))


@pytest.mark.parametrize("real", [False, True])
def test_labels_are_the_masks_as_0_and_1(run_dir, tmp_path, pixels, real):
    raw, splits = run(run_dir, tmp_path / "out", real=real)
    cases = ["P_0", "P_1", "P_2"]
    cases = ["0012", "0014", *cases] if real else cases
    assert stems(raw / "labelsTr") == cases
    assert stems(raw / "imagesTr") == [f"{case}_0000" for case in cases]
    described = json.loads((raw / "dataset.json").read_text())
    assert described["numTraining"] == len(cases) and described["file_ending"] == ".png"
    assert list(described["labels"].values()) == [0, 1] and len(described["channel_names"]) == 3
    for name, mask in zip(["P_0", "P_1", "P_2"], MASKS.values(), strict=True):
        label = pixels(raw / f"labelsTr/{name}.png")
        assert label.dtype == np.uint8 and np.array_equal(label, mask().astype(np.uint8))
        image = pixels(raw / f"imagesTr/{name}_0000.png")
        assert np.array_equal(image, pixels(run_dir / f"augment/images/{name}.png"))
    # Images without a mask are in no part of the split.
    assert [{split: sorted(ids) for split, ids in fold.items()} for fold in splits] == [
        {"train": ["0012", "P_0", "P_1", "P_2"], "val": ["0014"]}
    ]
    assert (stems(raw / "labelsTs") if real else []) == (["0015"] if real else [])
    assert (raw / "imagesTs").exists() is real
    listed = pd.read_csv(tmp_path / "out/images.csv", dtype=str)["id"].tolist()
    assert sorted(listed) == sorted([*cases, "0015"] if real else cases)


def test_a_set_without_masks_is_refused(run_dir, tmp_path):
    path = run_dir / "augment/metadata.csv"
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    frame[frame["mask"] == ""].to_csv(path, index=False)
    with pytest.raises(ValueError, match="found 1 images and no mask"):
        run(run_dir, tmp_path / "out")
    assert not (tmp_path / "out").exists()
