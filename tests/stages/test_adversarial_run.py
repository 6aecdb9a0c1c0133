"""The adversarial methods through the stages: trained by `train`, then sampled."""

import json

import numpy as np
import pytest

from didgen.data.images import read_image, read_mask
from didgen.data.manifest import read_manifest
from didgen.settings.images import Config as ImagesConfig
from didgen.settings.pairs import RivalConfig
from didgen.settings.train import Config as TrainConfig
from didgen.stages import images, pairs, train

SMALL = {"channel_share": 0.02, "training_batch": 2}
OWN = {
    "sl_stylegan": {**SMALL, "training_steps": 1},
    "pgan": {**SMALL, "training_batch": 4, "first_steps": 1, "level_steps": 1},
    "pix2pixhd": {**SMALL, "blocks": 1, "epochs": 1, "decay_epochs": 0, "conditions": "training"},
}


def trained(mini_run, root, method):
    """The stages' shared settings, once the method is trained on two diagnoses."""
    files = {"train": mini_run.train, "captions": mini_run.captions}
    files |= {"method": method, "own": OWN[method]}
    finetune = {"classes": ["MEL", "NV"]}
    train.run(TrainConfig(**files, finetune=finetune, out=root / "model", state=root / ".state"))
    return {**files, "model": root / "model", "batch_size": 2}


@pytest.mark.parametrize("method", ["sl_stylegan", "pgan"])
def test_images_of_each_diagnosis_whatever_the_shards(mini_run, tmp_path, method):
    made = trained(mini_run, tmp_path, method)
    wanted = {**made, "classes": ("MEL", "NV"), "per_class": 3}
    images.run(ImagesConfig(**wanted, out=tmp_path / "whole"))
    for number in (1, 2):
        images.run(ImagesConfig(**wanted, out=tmp_path / f"{number}", shard=f"{number}/2"))
    frame = read_manifest(tmp_path / "whole/metadata.csv").set_index("id")
    assert frame["label"].tolist() == ["MEL"] * 3 + ["NV"] * 3
    assert set(frame["method"]) == {method} and set(frame["caption"]) == {""}
    assert frame["sha256"].nunique() == 6
    parts = [read_manifest(tmp_path / f"{number}/metadata.csv") for number in (1, 2)]
    for part in parts:
        for row in part.itertuples():
            assert row.sha256 == frame.loc[row.id, "sha256"]
    assert sum(map(len, parts)) == 6
    budget = json.loads((tmp_path / "model/budget.json").read_text())
    assert budget["steps"] == {"sl_stylegan": 2, "pgan": 12}[method]


def test_pairs_follow_the_masks_of_training_images(mini_run, tmp_path):
    made = trained(mini_run, tmp_path, "pix2pixhd")
    pairs.run(RivalConfig(**made, count=3, classes=("MEL", "NV"), out=tmp_path / "pairs"))
    real = read_manifest(mini_run.train).set_index("id")
    frame = read_manifest(tmp_path / "pairs/metadata.csv")
    assert len(frame) == 3 and set(frame["label"]) <= {"MEL", "NV"}
    for row in frame.itertuples():
        mask = read_mask(tmp_path / "pairs" / row.mask)
        asked = read_mask(mini_run.train.parent / real.loc[row.parent_ids, "mask"])
        assert np.array_equal(mask, asked)
        assert read_image(tmp_path / "pairs" / row.image).shape == (*mask.shape, 3)
