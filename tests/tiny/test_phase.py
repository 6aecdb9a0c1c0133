"""A phase: what it learns, keeps and continues from; in processes that share its steps too."""

import time

import pandas as pd
import pytest
import torch
from torch import nn

from didgen.tiny.phase import Phase, in_parallel, step_generator, train_phase
from didgen.training.loop import OutOfTime
from didgen.training.optimization import NonFiniteLoss
from didgen.training.processes import joined


def line():
    torch.manual_seed(0)
    return nn.Linear(1, 1)


def loss_for(module):
    def loss_of(step):
        x = torch.randn(8, 1, generator=step_generator(0, step))
        return (module(x) - (3 * x + 1)).square().mean()

    return loss_of


def test_training_learns_and_the_average_follows(tmp_path):
    module = line()
    phase = Phase(300, lr=0.1, report_to="none", warmup=1, ema=0.9)
    average = train_phase(module, loss_for(module), phase, tmp_path)
    assert average["weight"].item() == pytest.approx(3, abs=0.05)
    assert average["bias"].item() == pytest.approx(1, abs=0.05)


def test_a_run_in_two_pieces_equals_one_in_one(tmp_path):
    phase, seen = Phase(20, lr=0.05, report_to="none", every=5), []

    def evaluate(step, averages):
        seen.append((step, averages["weight"].item()))

    whole = line()
    expected = train_phase(whole, loss_for(whole), phase, tmp_path / "whole", evaluate=evaluate)
    assert [step for step, _ in seen] == [5, 10, 15, 20]
    assert seen[-1][1] == expected["weight"].item()
    first = line()

    def interrupted(step):
        if step == 13:
            raise KeyboardInterrupt
        return loss_for(first)(step)

    with pytest.raises(KeyboardInterrupt):
        train_phase(first, interrupted, phase, tmp_path / "parts")
    second = line()
    found = train_phase(second, loss_for(second), phase, tmp_path / "parts")
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert torch.equal(whole.weight, second.weight)
    tables = [pd.read_csv(tmp_path / name / "log.csv") for name in ("whole", "parts")]
    assert tables[0]["step"].tolist() == [5, 10, 15, 20]
    assert tables[0].drop(columns="seconds").equals(tables[1].drop(columns="seconds"))


def test_a_finished_phase_returns_its_average_without_a_step(tmp_path):
    module = line()
    expected = train_phase(module, loss_for(module), Phase(4, lr=0.05, report_to="none"), tmp_path)

    def never(step):
        raise AssertionError(f"step {step} was run again")

    found = train_phase(line(), never, Phase(4, lr=0.05, report_to="none"), tmp_path)
    assert torch.equal(expected["weight"], found["weight"])


def test_at_the_deadline_the_state_is_saved(tmp_path):
    module = line()
    with pytest.raises(OutOfTime, match="step 1 of 9"):
        train_phase(
            module,
            loss_for(module),
            Phase(9, lr=0.05, report_to="none", deadline=time.monotonic()),
            tmp_path,
        )
    assert (tmp_path / "step-0000001").is_dir()


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    module = line()
    with pytest.raises(NonFiniteLoss, match="step 1: the loss is nan; .*lower the learning rate"):
        train_phase(
            module, lambda step: module.weight.sum() * torch.nan, Phase(3, 1.0, "none"), tmp_path
        )


def test_one_process_is_the_calling_one():
    called = []
    in_parallel(1, called.append, "here")
    assert called == ["here"]


def train_in_each(folder) -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    with joined(cpu=True) as team:
        # Opposite pulls in the two processes: on average there is none.
        sign = 1 - 2 * team.rank
        train_phase(
            module, lambda step: module.weight.sum() * sign, Phase(3, 1.0, "none"), folder, team
        )
        (folder / f"{team.rank}.txt").write_text(str(module.weight.item()))


@pytest.mark.slow
def test_two_processes_train_one_model_and_one_writes(tmp_path):
    in_parallel(2, train_in_each, tmp_path)
    assert {(tmp_path / f"{k}.txt").read_text() for k in (0, 1)} == {"0.0"}
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 2
