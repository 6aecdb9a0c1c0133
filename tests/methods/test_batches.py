import numpy as np
import pytest
import torch

from didgen.methods.didgen.batches import assemble, batch_rows, draw
from didgen.methods.didgen.cache import mirror_words
from tests.methods.made_up import PREFIX, made_up_cache, made_up_settings


@pytest.mark.parametrize("batch_size", [1, 3, 4, 7, 25])
def test_every_epoch_shows_every_image_once(batch_size):
    n, epochs = 10, 3
    steps = -(-n * epochs // batch_size)
    rows = np.concatenate([batch_rows(n, batch_size, step, seed=5) for step in range(steps)])
    for epoch in range(epochs):
        assert sorted(rows[epoch * n : (epoch + 1) * n]) == list(range(n))
    assert rows[:n].tolist() != rows[n : 2 * n].tolist()
    assert batch_rows(n, batch_size, 2, 5).tolist() == batch_rows(n, batch_size, 2, 5).tolist()


def test_options_leave_the_other_draws_as_they_are(fresh):
    cache, settings = made_up_cache(fresh()), made_up_settings(batch_size=6)
    plain = draw(cache, PREFIX, settings, 0, 3, 1000)
    others = made_up_settings(batch_size=6, offset_noise=0.5, flips=True)
    changed = draw(cache, PREFIX, others, 0, 3, 1000)
    assert torch.equal(plain.posterior, changed.posterior)
    assert torch.equal(plain.timesteps, changed.timesteps)
    shift = changed.noise - plain.noise
    # Offset noise is the same in all cells of a channel.
    assert shift.std(dim=(-2, -1)).max() < 1e-6 < shift.abs().mean()
    assert (changed.rows % 6).tolist() == plain.rows.tolist()
    assert 0 < (changed.rows >= 6).sum() < 6


def test_an_empty_prompt_ties_no_region(fresh):
    cache = made_up_cache(fresh())
    draws = draw(cache, PREFIX, made_up_settings(prompt_dropout=0.8), 0, 0, 1000)
    empty = draws.prompt_rows == cache.fixed_rows[""]
    assert empty.any() and not draws.regions[empty].any()


def test_parts_of_a_batch_are_its_rows(fresh):
    backbone = fresh()
    cache = made_up_cache(backbone)
    draws = draw(cache, PREFIX, made_up_settings(), 0, 1, 1000)
    whole = assemble(backbone, cache, draws, slice(0, 4))
    part = assemble(backbone, cache, draws, slice(1, 3))
    assert torch.equal(part.noisy, whole.noisy[1:3])
    assert torch.equal(part.masks, whole.masks[1:3])
    assert torch.equal(part.embeddings, whole.embeddings[1:3])


def test_left_and_right_change_places():
    assert mirror_words("a mark left of the upper right corner, bright") == (
        "a mark right of the upper left corner, bright"
    )
