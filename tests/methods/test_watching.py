import pandas as pd
import pytest

from didgen.methods.didgen.checkpoint import StepLoss
from didgen.methods.didgen.watching import (
    NonFiniteValidation,
    Watch,
    progress,
    validation_steps,
)


def test_validation_comes_first_at_intervals_and_last():
    assert validation_steps(10, 4) == [0, 4, 8, 10]
    assert validation_steps(10, 5) == [0, 5, 10]
    assert validation_steps(3, 100) == [0, 3]


def test_a_training_is_logged_and_validated(train, tmp_path):
    seen = []

    def validate(step):
        seen.append(step)
        return {"score": 0.1 * step}

    watch = Watch(tmp_path / "s", 4, validate, validate_every=3)
    curve, backbone = train(tmp_path / "s", watch=watch)
    assert seen == [0, 3, 4] and [row["step"] for row in watch.validations] == seen
    log = pd.read_csv(tmp_path / "s/log.csv")
    assert log["step"].tolist() == [1, 2, 3, 4]
    assert log["loss"].tolist() == pytest.approx([s.loss for s in curve])
    assert not backbone.unet.training


def test_a_continued_training_keeps_what_was_seen(train, tmp_path):
    seen = []

    def validate(step):
        seen.append(step)
        return {"score": 1.0}

    train(tmp_path / "s", watch=Watch(tmp_path / "s", 2, validate, 1), steps=2)
    watch = Watch(tmp_path / "s", 4, validate, 1)
    train(tmp_path / "s", watch=watch)
    assert seen == [0, 1, 2, 3, 4]
    assert [row["step"] for row in watch.validations] == seen
    assert pd.read_csv(tmp_path / "s/log.csv")["step"].tolist() == [1, 2, 3, 4]


def test_validation_sees_the_network_at_rest(train, fresh, tmp_path):
    backbone = fresh()
    modes = []
    watch = Watch(tmp_path / "s", 2, lambda step: modes.append(backbone.unet.training) or {}, 1)
    train(tmp_path / "s", watch=watch, backbone=backbone, steps=2)
    assert modes == [False] * 3


def test_a_validation_that_is_not_finite_stops_and_keeps_the_state(train, tmp_path):
    def validate(step):
        return {"loss_rec": 1.0, "score": float("nan") if step == 2 else 1.0}

    watch = Watch(tmp_path / "s", 4, validate, 2)
    told = "step 2: found score not finite; .*learning_rate"
    with pytest.raises(NonFiniteValidation, match=told):
        train(tmp_path / "s", watch=watch)
    assert [path.name for path in (tmp_path / "s").glob("step-*")] == ["step-0000002"]
    assert [row["step"] for row in watch.validations] == [0]


def test_tensorboard_files_are_written(train, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    watch = Watch(tmp_path / "s", 2, tensorboard=True)
    train(tmp_path / "s", watch=watch, steps=2)
    events = EventAccumulator(str(tmp_path / "s/tensorboard")).Reload()
    assert [event.step for event in events.Scalars("training/loss")] == [1, 2]


def test_the_line_of_progress_counts_this_runs_steps():
    """Of 100 steps 50 are done, 10 of them in this run's 20 seconds: 2 s a step, 100 s left."""
    curve = [StepLoss(n, 0.5, 0.4, 1.0, 1e-4, 1.0, 0.0) for n in range(1, 51)]
    text = progress(50, 100, 10, 20.0, curve)
    assert "step 50/100, 2.00 s/step, 100 s left: loss 0.5000, rec 0.4000, attn 1.0000" in text
    assert text.endswith("GB")
