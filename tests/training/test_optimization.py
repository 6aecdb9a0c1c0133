"""A step by hand: learning rates, clipping, refusals and averages."""

import math

import pytest
import torch
from torch import nn

from didgen.training.optimization import (
    Average,
    NonFiniteLoss,
    update,
    warm_up,
    warm_up_and_cosine,
)


def test_a_warm_up_rises_and_stays():
    assert [warm_up(step, 4) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert warm_up(0, 0) == 1


def test_a_cosine_follows_the_warm_up():
    share = [warm_up_and_cosine(step, 110, 10, 0.2) for step in range(111)]
    assert share[0] == pytest.approx(0.1)
    assert share[9] == share[10] == 1
    assert share[60] == pytest.approx(0.6)  # half way: the mean of 1 and 0.2
    assert share[110] == pytest.approx(0.2)
    assert warm_up_and_cosine(99, 100, 10) == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))


def test_an_update_clips_steps_and_clears():
    weight = nn.Parameter(torch.tensor([1.0, 1.0]))
    optimizer = torch.optim.SGD([weight], lr=9.0)
    loss = (weight * torch.tensor([3.0, 4.0])).sum()
    loss.backward()
    row = update(optimizer, {"loss": loss}, learning_rate=0.5, max_norm=1.0)
    # The gradient (3, 4) has norm 5: it is cut to (0.6, 0.8), half of which is taken away.
    assert row == pytest.approx({"loss": 7.0, "lr": 0.5, "grad_norm": 5.0})
    assert weight.tolist() == pytest.approx([0.7, 0.6])
    assert weight.grad is None


@pytest.mark.parametrize(
    ("gradient", "loss", "named"), [(1.0, "nan", "loss"), ("inf", 1.0, "grad")]
)
def test_what_is_not_finite_changes_no_weight(gradient, loss, named):
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.full((2,), float(gradient))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    with pytest.raises(NonFiniteLoss, match=f"the {named}.* is (nan|inf)"):
        update(optimizer, {"loss": torch.tensor(float(loss))}, learning_rate=1.0, max_norm=1.0)
    assert weight.tolist() == [1.0, 1.0]


def test_an_average_follows_and_changes_places():
    weight = nn.Parameter(torch.zeros(1))
    average = Average([weight], decay=0.5)
    with torch.no_grad():
        weight.fill_(11.0)
    average.update(1)  # a decay of 2 / 11 at first
    assert average.values[0].item() == pytest.approx(9.0)
    average.update(100)
    assert average.values[0].item() == pytest.approx(10.0)
    with average.applied():
        assert weight.item() == pytest.approx(10.0)
    assert (weight.item(), average.values[0].item()) == pytest.approx((11.0, 10.0))
