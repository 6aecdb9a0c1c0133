import numpy as np
import pytest
import torch

from didgen.synthesis.didgen.training import batch_rows, reconstruction_loss, total_loss


def test_reconstruction_loss_is_the_mean_square_of_each_image():
    """Eq. 1: errors of 1 everywhere in one image, of 3 on half of the other."""
    target = torch.zeros(2, 1, 2, 2)
    prediction = torch.tensor([[[[1.0, -1.0], [1.0, -1.0]]], [[[3.0, 0.0], [0.0, -3.0]]]])
    assert reconstruction_loss(prediction, target).tolist() == [1.0, 4.5]


def test_total_loss_weighs_attention_over_masked_images_only():
    """Eq. 4: (0.2 + 0.4) / 2 + 0.1 * (0.5 + 0.1) / 2 without the third image's 9."""
    rec = torch.tensor([0.2, 0.4, 0.3])
    attn = torch.tensor([0.5, 0.1, 9.0])
    total, mean_attn = total_loss(rec, attn, torch.tensor([True, True, False]), alpha=0.1)
    assert mean_attn.item() == pytest.approx(0.3)
    assert total.item() == pytest.approx(0.3 + 0.03)


def test_without_any_mask_only_the_reconstruction_is_left():
    total, attn = total_loss(
        torch.tensor([0.2]), torch.tensor([9.0]), torch.tensor([False]), alpha=0.1
    )
    assert attn.item() == 0.0 and total.item() == pytest.approx(0.2)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 7, 25])
def test_every_epoch_shows_every_image_once(batch_size):
    n, epochs = 10, 3
    steps = -(-n * epochs // batch_size)
    rows = np.concatenate([batch_rows(n, batch_size, step, seed=5) for step in range(steps)])
    for epoch in range(epochs):
        assert sorted(rows[epoch * n : (epoch + 1) * n]) == list(range(n))
    assert rows[:n].tolist() != rows[n : 2 * n].tolist()
    assert batch_rows(n, batch_size, 2, 5).tolist() == batch_rows(n, batch_size, 2, 5).tolist()
