import math

import pytest
import torch

from didgen.methods.didgen.objective import (
    attention_loss,
    jensen_shannon_loss,
    reconstruction_loss,
    snr_weights,
    total_loss,
)


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


def test_the_parts_of_a_batch_add_up_to_its_loss():
    """Also where one part has all the masks and the other none."""
    rec, attn = torch.rand(4), torch.rand(4)
    has_mask = torch.tensor([True, True, True, False])
    whole, mean = total_loss(rec, attn, has_mask, 0.1)
    parts = [
        total_loss(rec[p], attn[p], has_mask[p], 0.1, images=4, masked=3)
        for p in (slice(0, 1), slice(1, 3), slice(3, 4))
    ]
    assert sum(part[0].item() for part in parts) == pytest.approx(whole.item(), rel=1e-6)
    assert sum(part[1].item() for part in parts) == pytest.approx(mean.item(), rel=1e-6)


def test_jensen_shannon_of_opposite_halves_and_of_equals():
    half = torch.zeros(1, 1, 4, 4)
    half[..., :2] = 1.0
    a, b = math.e / (math.e + 1), 1 / (math.e + 1)
    expected = a * math.log(2 * a) + b * math.log(2 * b)
    assert expected == pytest.approx(0.111, abs=1e-3)
    assert jensen_shannon_loss(half, 1 - half).item() == pytest.approx(expected, rel=1e-5)
    assert jensen_shannon_loss(0.3 * half, half).item() == pytest.approx(0.0, abs=1e-6)


def test_jensen_shannon_is_finite_with_a_gradient_for_constant_maps():
    maps = torch.full((2, 2, 4, 4), 0.1, requires_grad=True)
    loss = attention_loss(maps, torch.zeros(2, 2, 4, 4), "jensen-shannon", "mean")
    loss.sum().backward()
    assert loss.shape == (2,) and torch.isfinite(maps.grad).all()


@pytest.mark.parametrize(
    ("kind", "expected"), [("epsilon", [1.0, 0.5]), ("v_prediction", [0.5, 5 / 11])]
)
def test_min_snr_weights_by_hand(kind, expected):
    """Signal shares of 1/2 and 10/11 are ratios of 1 and 10."""
    alphas = torch.tensor([0.5, 10 / 11], dtype=torch.float64)
    found = snr_weights(alphas, torch.tensor([0, 1]), kind, gamma=5.0)
    assert found.tolist() == pytest.approx(expected, rel=1e-5)
