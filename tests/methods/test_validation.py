"""Validation during a fine-tuning: when, with which weights, and what is kept of it."""

import json

import pandas as pd
import pytest

from didgen.methods.didgen.validation import validation_steps
from didgen.training.optimization import NonFiniteLoss


def test_validation_comes_first_at_intervals_and_last():
    assert validation_steps(10, 4) == [0, 4, 8, 10]
    assert validation_steps(10, 5) == [0, 5, 10]
    assert validation_steps(3, 100) == [0, 3]


def rows(folder):
    return json.loads((folder / "validation.json").read_text())


def test_a_training_is_logged_and_validated(train, tmp_path):
    seen = []

    def measure(done):
        seen.append(done)
        return {"score": 0.1 * done}

    curve, backbone = train(tmp_path / "s", measure=measure, every=3)
    assert seen == [0, 3, 4] and [row["step"] for row in rows(tmp_path / "s")] == seen
    log = pd.read_csv(tmp_path / "s/log.csv")
    assert log["step"].tolist() == [1, 2, 3, 4]
    assert log["loss"].tolist() == pytest.approx([row["loss"] for row in curve])
    assert not backbone.unet.training


def test_a_continued_training_keeps_what_was_measured(train, tmp_path):
    seen = []

    def measure(done):
        seen.append(done)
        return {"score": 1.0}

    train(tmp_path / "s", measure=measure, steps=2)
    train(tmp_path / "s", measure=measure)
    assert seen == [0, 1, 2, 3, 4]
    assert [row["step"] for row in rows(tmp_path / "s")] == seen
    assert pd.read_csv(tmp_path / "s/log.csv")["step"].tolist() == [1, 2, 3, 4]


def test_validation_sees_the_network_at_rest_and_its_average(train, fresh, tmp_path):
    backbone, seen = fresh(), []
    weight = backbone.unet.conv_out.weight

    def measure(done):
        seen.append((backbone.unet.training, weight.detach().clone()))
        return {}

    train(tmp_path / "s", measure=measure, backbone=backbone, steps=2, ema=0.999)
    assert [training for training, _ in seen] == [False] * 3
    # The averaged weights are what is kept in the end.
    assert (seen[2][1] == weight).all() and not (seen[1][1] == weight).all()


def test_a_validation_that_is_not_finite_stops_and_keeps_the_state(train, tmp_path):
    def measure(done):
        return {"loss_rec": 1.0, "score": float("nan") if done == 2 else 1.0}

    told = "step 2: found score not finite; .*learning_rate"
    with pytest.raises(NonFiniteLoss, match=told):
        train(tmp_path / "s", measure=measure, every=2)
    assert [path.name for path in (tmp_path / "s").glob("step-*")] == ["step-0000002"]
    assert [row["step"] for row in rows(tmp_path / "s")] == [0]
