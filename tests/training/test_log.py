"""What a training tells: its CSV, its lines and a tracker."""

import logging

import pandas as pd
import pytest

from didgen.settings.extras import MissingExtra
from didgen.training.log import Log, TrackerError


def rows(first: int, last: int) -> list[dict]:
    return [
        {"step": n, "loss": float(n), "lr": 0.1 / n, "seconds": 0.5 * n}
        for n in range(first, last + 1)
    ]


def write(log: Log, steps: int, done: int = 0, until: int | None = None) -> None:
    history = rows(1, done)
    with log:
        log.begin(history, steps)
        for row in rows(done + 1, until or steps):
            history.append(row)
            log.step(history)


def test_the_csv_has_a_row_a_step_and_drops_what_went_beyond_the_state(tmp_path):
    write(Log("fit", tmp_path, every=1, report_to="none"), steps=6, until=5)
    write(Log("fit", tmp_path, every=1, report_to="none"), steps=6, done=2)
    table = pd.read_csv(tmp_path / "log.csv")
    assert list(table.columns) == ["step", "loss", "lr", "seconds"]
    assert table["step"].tolist() == [1, 2, 3, 4, 5, 6]
    assert table["loss"].tolist() == [1, 2, 3, 4, 5, 6]


def test_a_row_may_stand_for_several_steps(tmp_path):
    """Losses are means; of steps 7 and 8 after 4 to 6, the learning rate is the last one."""
    for folder, done in (("whole", 0), ("resumed", 5)):
        write(Log("fit", tmp_path / folder, every=3, report_to="none"), steps=8, done=done)
        table = pd.read_csv(tmp_path / folder / "log.csv")
        assert table["step"].tolist() == [3, 6, 8]
        assert table["loss"].tolist() == [2, 5, 7.5]
        assert table["lr"].tolist() == pytest.approx([0.1 / 3, 0.1 / 6, 0.1 / 8])


def test_lines_have_mean_losses_and_memory(caplog):
    caplog.set_level(logging.INFO)
    log = Log("fit", report_to="none")
    write(log, steps=50)
    # The mean of the last 25 of 50 steps.
    assert "fit: 50/50" in caplog.text and ": loss 38.0000, " in caplog.text
    assert caplog.text.rstrip().endswith("GB")
    log.evaluation({"step": 50, "score": 0.5})
    assert "after step 50: score 0.5000" in caplog.text


def test_tensorboard_gets_steps_and_evaluations_and_purges_what_is_repeated(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write(Log("fit", tmp_path, report_to="tensorboard"), steps=6, until=4)
    log = Log("fit", tmp_path, report_to="tensorboard")
    with log:
        log.begin(rows(1, 2), 6)
        log.step(rows(1, 3))
        log.evaluation({"step": 3, "score": 0.5})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("training/loss")] == [1, 2, 3]
    assert [event.value for event in events.Scalars("validation/score")] == [0.5]
    assert not (tmp_path / "log.csv").exists()


def test_a_tracker_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="`pip install wandb`"):
        Log("fit", report_to="wandb")


def test_a_tracker_that_cannot_start_is_named(tmp_path):
    pytest.importorskip("tensorboard")
    (tmp_path / "tensorboard").write_text("no folder")
    with pytest.raises(TrackerError, match="report_to: tensorboard cannot be started"):
        write(Log("fit", tmp_path, report_to="tensorboard"), steps=1)
