import csv
import time

import pytest
import torch
from torch import nn

from didgen.tiny.loop import OutOfTime, Plan, step_generator, train


def line():
    torch.manual_seed(0)
    return nn.Linear(1, 1)


def loss_for(module):
    def loss_of(step):
        x = torch.randn(8, 1, generator=step_generator(0, step))
        return (module(x) - (3 * x + 1)).square().mean()

    return loss_of


def test_the_learning_rate_warms_up_then_follows_a_cosine():
    plan = Plan(steps=110, lr=1.0, warmup=10, final_lr=0.2)
    assert plan.learning_rate(0) == pytest.approx(0.1)
    assert plan.learning_rate(9) == pytest.approx(1.0)
    assert plan.learning_rate(10) == pytest.approx(1.0)
    assert plan.learning_rate(60) == pytest.approx(0.6)  # half way: the mean of 1 and 0.2
    assert plan.learning_rate(110) == pytest.approx(0.2)


def test_training_learns_and_the_average_follows(tmp_path):
    module = line()
    average = train(module, loss_for(module), Plan(300, lr=0.1, warmup=1, ema=0.9), tmp_path)
    assert average["weight"].item() == pytest.approx(3, abs=0.05)
    assert average["bias"].item() == pytest.approx(1, abs=0.05)


def test_a_run_in_two_pieces_equals_one_in_one(tmp_path):
    whole = line()
    expected = train(whole, loss_for(whole), Plan(20, lr=0.05, every=5), tmp_path / "whole")
    first = line()

    def interrupted(step):
        if step == 13:
            raise KeyboardInterrupt
        return loss_for(first)(step)

    with pytest.raises(KeyboardInterrupt):
        train(first, interrupted, Plan(20, lr=0.05, every=5), tmp_path / "parts")
    second = line()
    found = train(second, loss_for(second), Plan(20, lr=0.05, every=5), tmp_path / "parts")
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert torch.equal(whole.weight, second.weight)
    with (tmp_path / "parts" / "log.csv").open() as stream:
        assert [row["step"] for row in csv.DictReader(stream)] == ["5", "10", "15", "20"]


def test_a_finished_run_returns_its_average_without_a_step(tmp_path):
    module = line()
    expected = train(module, loss_for(module), Plan(4, lr=0.05), tmp_path)

    def never(step):
        raise AssertionError(f"step {step} was run again")

    found = train(line(), never, Plan(4, lr=0.05), tmp_path)
    assert torch.equal(expected["weight"], found["weight"])


def test_at_the_deadline_the_state_is_saved(tmp_path):
    module = line()
    with pytest.raises(OutOfTime, match="step 1 of 9"):
        plan = Plan(9, lr=0.05, deadline=time.monotonic())
        train(module, loss_for(module), plan, tmp_path)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 1


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    module = line()
    with pytest.raises(FloatingPointError, match="step 0 is nan"):
        train(module, lambda step: module.weight.sum() * float("nan"), Plan(3, lr=1.0), tmp_path)
