"""Pairs of the methods that make an image for a mask: through the stages `train` and `pairs`."""

import numpy as np
import pytest
from pydantic import ValidationError

from didgen.data.manifest import read_manifest
from didgen.settings.pairs import RivalConfig
from didgen.settings.train import Config as TrainConfig
from didgen.stages import pairs, train
from tests.stages.test_augment import synthetic_set

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
                own={"conditions": "training"},
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


def test_the_masks_of_the_own_pairs_are_followed_with_their_captions_and_seeds(tmp_path, caplog):
    shards = [
        synthetic_set(tmp_path / "1", ["PAIR_00000", "PAIR_00002"], paired=True),
        synthetic_set(tmp_path / "2", ["PAIR_00001"], paired=True),
    ]
    paths = {name: tmp_path / name for name in ("train", "captions", "model", "out")}
    config = RivalConfig(**paths, method="zestguide", generated=shards, count=2)
    requests = pairs.RepeatedRequests(config)
    assert [request.id for request in requests] == ["PAIR_00000", "PAIR_00001"]
    for request in requests:
        known = (request.caption, request.seed, request.label, request.parent_ids)
        assert known == ("x", 1, "MEL", ("x",))
        assert np.array_equal(request.mask, np.eye(32, dtype=bool))
    assert len(pairs.RepeatedRequests(config.model_copy(update={"count": 9}))) == 3
    assert "3 pairs in place of 9" in caplog.text


def test_generated_masks_that_are_not_there_are_named(mini_run, tmp_path):
    files = {"train": mini_run.train, "captions": mini_run.captions, "model": mini_run.backbone}
    with pytest.raises(ValidationError, match="conditions: found generated, but no pairs"):
        RivalConfig(**files, method="zestguide", out=tmp_path)
