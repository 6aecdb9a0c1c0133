"""Prior preservation in a batch: which images, which weights, which prompts."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from didgen.methods.didgen.batches import draw
from didgen.methods.didgen.cache import PriorRows
from didgen.methods.didgen.objective import reconstruction_loss, total_loss
from didgen.methods.didgen.optimizer import add_lora, trained_parameters
from tests.methods.made_up import PREFIX, made_up_cache, made_up_settings


def drawn(cache, step: int = 0, **changes):
    return draw(cache, PREFIX, made_up_settings(**changes), 0, step, 1000)


def test_half_of_a_batch_are_images_of_the_prior(fresh):
    cache = made_up_cache(fresh())
    own = len(cache) - 3
    prior = replace(cache, prior=PriorRows(3, 0.5))
    seen = set()
    for step in range(6):
        draws = drawn(prior, step, batch_size=4, prefix_only=1.0, prompt_dropout=0.0)
        assert (draws.rows[:2] < own).all() and (draws.rows[2:] >= own).all()
        assert draws.weights.tolist() == [2.0, 2.0, 1.0, 1.0]
        # The prefix alone takes the place of captions, not of the class prompt.
        assert (draws.prompt_rows[:2] == cache.fixed_rows[PREFIX]).all()
        assert (draws.prompt_rows[2:] == cache.prompt_rows[draws.rows[2:]]).all()
        seen |= set(draws.rows)
    assert len(seen & set(range(own, len(cache)))) == 3
    assert drawn(cache, batch_size=4).weights.tolist() == [1.0] * 4


def test_the_loss_is_the_mean_over_each_half_with_the_weight_of_the_prior():
    prediction = torch.tensor([1.0, 3.0, 2.0, 4.0]).reshape(4, 1, 1, 1)
    weights = torch.tensor([2.0, 2.0, 1.0, 1.0])  # of a prior_weight of 0.5
    losses = reconstruction_loss(prediction, torch.zeros_like(prediction)) * weights
    loss, _ = total_loss(losses, torch.zeros(4), torch.zeros(4, dtype=torch.bool), 0.0, 4, 0)
    assert loss.item() == pytest.approx((1 + 9) / 2 + 0.5 * (4 + 16) / 2)


@pytest.mark.parametrize("rank", [0, 2])
def test_trained_parameters_are_counted(fresh, rank):
    if rank:
        pytest.importorskip("peft")
    unet = fresh().unet
    counted = trained_parameters(unet, made_up_settings(lora_rank=rank))
    unet.requires_grad_(rank == 0)
    if rank:
        add_lora(unet, rank, seed=0)
    assert counted == sum(np.prod(p.shape) for p in unet.parameters() if p.requires_grad)
