"""A training that is ended and started again gives what the undisturbed one gives."""

import itertools
import os
import signal

import numpy as np
import pytest
import torch
from torch import nn

from didgen.downstream import training
from didgen.downstream.classifiers import classification_loss
from didgen.downstream.datasets import ImageSet, build, usable_rows
from didgen.settings.schedule import Schedule
from didgen.training.loop import TrainingStopped
from didgen.training.state import BrokenState

CPU = torch.device("cpu")
PLAN = Schedule(steps=12, batch_size=4, eval_every=4, learning_rate=1e-2, precision="float32")


class Killed(Exception):
    """Stands for SIGKILL: nothing of ours handles it."""


@pytest.fixture
def data(image_set) -> ImageSet:
    return build(usable_rows(image_set("a"), "label")[0], None, ["MEL", "NV"])


@pytest.fixture(autouse=True)
def _save_at_every_evaluation(monkeypatch):
    monkeypatch.setattr(training, "SAVE_EVERY", 0.0)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
    )  # fmt: skip


def accuracy(outputs: np.ndarray, data: ImageSet) -> float:
    return float((outputs.argmax(1) == data.labels).mean())


def fit(
    data: ImageSet, state=None, at: int | None = None, do=None, plan: Schedule = PLAN, score=None
):
    """Train; in the forward pass number `at`, counted from 1, call `do`."""
    model, steps = network(), []

    def loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if outputs.requires_grad:
            steps.append(1)
            if len(steps) == at:
                do()
        return classification_loss(outputs, labels)

    outcome = training.train(model, data, data, loss, score or accuracy, plan, 3, CPU, state=state)
    return model, outcome, len(steps)


def same(one, other) -> bool:
    curves = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in outcome.curves]
        for _, outcome, _ in (one, other)
    ]
    first, second = one[0].state_dict(), other[0].state_dict()
    return curves[0] == curves[1] and all(torch.equal(first[k], second[k]) for k in first)


def kill() -> None:
    raise Killed


def end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_after_a_kill_it_continues_from_the_last_evaluation(data, tmp_path):
    whole = fit(data)
    with pytest.raises(Killed):
        fit(data, tmp_path / "state", at=7, do=kill)
    assert [p.name for p in (tmp_path / "state").iterdir()] == ["step-0000004"]
    resumed = fit(data, tmp_path / "state")
    assert resumed[2] == 8
    assert same(whole, resumed)


def test_when_asked_to_end_it_saves_at_once(data, tmp_path):
    whole = fit(data)
    with pytest.raises(TrainingStopped) as stopped:
        fit(data, tmp_path / "state", at=6, do=end)
    assert stopped.value.code == 143
    assert [p.name for p in (tmp_path / "state").iterdir()] == ["step-0000006"]
    resumed = fit(data, tmp_path / "state")
    assert resumed[2] == 6
    assert same(whole, resumed)


def test_patience_counts_on_across_a_restart(data, tmp_path):
    plan = PLAN.model_copy(update={"steps": 40, "patience": 2})
    calls = itertools.count()

    def worse_and_worse(outputs: np.ndarray, found: ImageSet) -> float:
        return -float(next(calls))

    with pytest.raises(Killed):
        fit(data, tmp_path / "state", at=6, do=kill, plan=plan, score=worse_and_worse)
    _, outcome, _ = fit(data, tmp_path / "state", plan=plan, score=worse_and_worse)
    # Evaluations at 4 (the best), 8 and 12: two of them without a better one.
    assert (outcome.best_step, outcome.steps, outcome.stopped_early) == (4, 12, True)


def test_without_a_folder_nothing_is_saved(data, tmp_path):
    with pytest.raises(TrainingStopped):
        fit(data, at=2, do=end)
    assert not list(tmp_path.glob("**/step-*"))


def test_a_damaged_or_foreign_state_is_refused(data, tmp_path):
    with pytest.raises(Killed):
        fit(data, tmp_path / "state", at=7, do=kill)
    (tmp_path / "state" / "step-0000004" / "optimizer.safetensors").write_bytes(b"damaged")
    with pytest.raises(BrokenState, match="delete the folder"):
        fit(data, tmp_path / "state")
