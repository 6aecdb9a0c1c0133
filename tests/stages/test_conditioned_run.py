"""Pairs of the methods that make an image for a mask: through the stages `train` and `pairs`."""

import pytest

from didgen.data.manifest import read_manifest
from didgen.settings.pairs import RivalConfig
from didgen.settings.train import Config as TrainConfig
from didgen.stages import pairs, train

QUICK = {"count": 3, "batch_size": 2, "steps": 2, "precision": "float32"}


@pytest.fixture(scope="module")
def model_of(mini_run, tmp_path_factory):
    """A function: where the stage `pairs` finds a method's model."""
    out = tmp_path_factory.mktemp("conditioned") / "controlnet"
    train.run(
        TrainConfig(
            method="controlnet",
            train=mini_run.train,
            captions=mini_run.captions,
            backbone=mini_run.backbone,
            finetune={"steps": 2, "batch_size": 2, "precision": "float32"},
            out=out,
            state=out.parent / "state",
        )
    )
    return lambda method: out if method == "controlnet" else mini_run.backbone


@pytest.mark.parametrize("method", ["attention_refocusing", "controlnet", "zestguide"])
def test_pairs_keep_the_mask_asked_for_whatever_the_shard(mini_run, model_of, tmp_path, method):
    def made(shard):
        out = tmp_path / shard.replace("/", "-of-")
        pairs.run(
            RivalConfig(
                method=method,
                train=mini_run.train,
                captions=mini_run.captions,
                model=model_of(method),
                backbone=mini_run.backbone,
                out=out,
                shard=shard,
                **QUICK,
            )
        )
        return read_manifest(out / "metadata.csv"), out

    frame, out = made("1/1")
    assert len(frame) == 3 and frame["sha256"].nunique() == 3
    assert (frame["method"] == method).all() and frame["checkpoint"].nunique() == 1
    for row in frame.itertuples():
        assert (out / row.mask).read_bytes() == (out / row.condition).read_bytes()
    last, _ = made("2/2")
    assert last["sha256"].tolist() == frame["sha256"].tolist()[2:]
