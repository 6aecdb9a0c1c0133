import functools

import pytest
import torch

from didgen.attention.losses import (
    cross_attention_guidance_loss,
    region_attention_loss,
    self_attention_guidance_loss,
)
from didgen.attention.maps import gaussian_smooth

AS_RELEASED = {"reading": "minmax", "normalization": "mean"}
RATIO = {"reading": "foreground-background", "normalization": "mean"}
SIGMA = 0.7

# Lesion: scaled [[0, .5], [.5, 1]]; skin: scaled [[1, 0], [0, 0]].
MAPS = torch.tensor([[[[0.1, 0.3], [0.3, 0.5]], [[0.5, 0.1], [0.1, 0.1]]]])
MASKS = torch.tensor([[[[0.0, 0.0], [1.0, 1.0]], [[1.0, 1.0], [0.0, 0.0]]]])

# Rows are pixels; the lesion is pixels 0 and 1, the skin 2 and 3.
SELF_MAP = torch.tensor(
    [[0.5, 0.3, 0.2, 0.0], [0.1, 0.6, 0.1, 0.2], [0.0, 0.2, 0.8, 0.0], [0.4, 0.0, 0.2, 0.4]]
)
REGIONS = torch.tensor([[[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]])


def mass_outside(self_map, regions):
    return (self_map @ (1 - regions).mT).mT


@pytest.mark.parametrize(
    ("reading", "normalization", "expected"),
    [
        # lesion (0 + .25 + .25 + 0) / 4, skin (0 + 1 + 0 + 0) / 4
        ("minmax", "mean", 0.5 * (0.125 + 0.25)),
        ("minmax", "sum", 0.5 * (0.5 + 1.0)),
        # lesion .01 + .09 + .49 + .25, skin .25 + .81 + .01 + .01
        ("raw", "sum", 0.5 * (0.84 + 1.08)),
        ("raw", "mean", 0.5 * (0.21 + 0.27)),
    ],
)
def test_equation_3_by_hand(reading, normalization, expected):
    loss = region_attention_loss(MAPS, MASKS, reading=reading, normalization=normalization)
    torch.testing.assert_close(loss, torch.tensor([expected]))


def test_equation_3_is_zero_for_perfect_maps_and_one_for_opposite_ones():
    perfect = region_attention_loss(0.01 * MASKS + 0.001, MASKS, **AS_RELEASED)
    assert float(perfect) == pytest.approx(0, abs=1e-10)
    assert float(region_attention_loss(1 - MASKS, MASKS, **AS_RELEASED)) == 1.0


def test_losses_are_per_image():
    maps, masks = torch.rand(5, 2, 4, 4), (torch.rand(5, 2, 4, 4) > 0.5).float()
    smoothed = functools.partial(cross_attention_guidance_loss, sigma=SIGMA)
    for equation in (region_attention_loss, smoothed):
        loss = functools.partial(equation, **AS_RELEASED)
        together = loss(maps, masks)
        alone = torch.cat([loss(a[None], b[None]) for a, b in zip(maps, masks, strict=True)])
        assert together.shape == (5,)
        torch.testing.assert_close(together, alone)


def test_guidance_loss_is_equation_3_on_smoothed_maps():
    maps, masks = torch.rand(2, 2, 6, 6), (torch.rand(2, 2, 6, 6) > 0.5).float()
    for reading in ("minmax", "raw"):
        torch.testing.assert_close(
            cross_attention_guidance_loss(
                maps, masks, reading=reading, sigma=SIGMA, normalization="mean"
            ),
            region_attention_loss(
                gaussian_smooth(maps, SIGMA), masks, reading=reading, normalization="mean"
            ),
        )
    torch.testing.assert_close(
        cross_attention_guidance_loss(maps, masks, sigma=0, **AS_RELEASED),
        region_attention_loss(maps, masks, **AS_RELEASED),
    )


def test_foreground_background_by_hand():
    # lesion: 1 - (.5 + 1) / 2 + (0 + .5) / 2 = .5; skin: 1 - (1 + 0) / 2 + 0 = .5
    loss = cross_attention_guidance_loss(MAPS, MASKS, **RATIO, sigma=0)
    torch.testing.assert_close(loss, torch.tensor([0.5]))
    perfect = cross_attention_guidance_loss(MASKS, MASKS, **RATIO, sigma=0)
    assert float(perfect) == 0.0


@pytest.mark.parametrize(
    ("normalization", "expected"),
    [
        # lesion: rows lose .2 and .3 to the outside of size 2; skin: .2 and .4
        ("sum", 0.5 * ((0.2 + 0.3) / 2 + (0.2 + 0.4) / 2)),
        ("mean", 0.5 * ((0.2 + 0.3) / 4 + (0.2 + 0.4) / 4)),
    ],
)
def test_equation_5_by_hand(normalization, expected):
    outside = mass_outside(SELF_MAP, REGIONS)
    loss = self_attention_guidance_loss(outside, REGIONS, normalization=normalization)
    torch.testing.assert_close(loss, torch.tensor([expected]))


def test_equation_5_equals_the_loop_over_pixels():
    torch.manual_seed(0)
    maps = torch.rand(3, 16, 16, dtype=torch.float64).softmax(-1)
    lesion = (torch.rand(3, 1, 16) > 0.6).double()
    regions = torch.cat([lesion, 1 - lesion], 1)
    expected = torch.zeros(3, dtype=torch.float64)
    for image in range(3):
        for region in regions[image]:
            outside = 1 - region
            for pixel in range(16):
                if region[pixel]:
                    expected[image] += 0.5 * (maps[image, pixel] * outside).sum() / outside.sum()
    loss = self_attention_guidance_loss(mass_outside(maps, regions), regions, normalization="sum")
    torch.testing.assert_close(loss, expected)


def test_equation_5_of_a_uniform_map_is_the_inverse_of_the_pixels():
    # Each pixel sends |outside| / N outside, divided by |outside|: 1 / N whatever the mask.
    uniform = torch.full((4, 4), 0.25)
    for size in (1, 2, 3):
        lesion = (torch.arange(4) < size).float().view(1, 1, 4)
        regions = torch.cat([lesion, 1 - lesion], 1)
        loss = self_attention_guidance_loss(
            mass_outside(uniform, regions), regions, normalization="mean"
        )
        torch.testing.assert_close(loss, torch.tensor([0.25]))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_empty_and_full_masks_add_nothing(value):
    lesion = torch.full((1, 1, 4), value)
    regions = torch.cat([lesion, 1 - lesion], 1)
    outside = mass_outside(SELF_MAP, regions).requires_grad_()
    for normalization in ("mean", "sum"):
        loss = self_attention_guidance_loss(outside, regions, normalization=normalization)
        (gradient,) = torch.autograd.grad(loss.sum(), outside)
        assert loss.item() == 0.0 and bool(torch.isfinite(gradient).all())
    maps = torch.rand(1, 2, 4, 4)
    masks = regions.unsqueeze(-1).expand(1, 2, 4, 4)
    ratio = cross_attention_guidance_loss(maps, masks, **RATIO, sigma=SIGMA)
    assert bool(torch.isfinite(ratio).all())


def test_gradients_agree_with_finite_differences():
    maps = torch.rand(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    masks = (torch.rand(1, 2, 3, 3) > 0.5).double()
    for reading in ("minmax", "raw", "foreground-background"):
        assert torch.autograd.gradcheck(
            lambda m, r=reading: cross_attention_guidance_loss(
                m, masks, reading=r, sigma=SIGMA, normalization="mean"
            ),
            maps,
        )
    outside = torch.rand(1, 2, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda m: self_attention_guidance_loss(m, masks.flatten(2), normalization="mean"), outside
    )


def test_boolean_masks_are_taken():
    torch.testing.assert_close(
        region_attention_loss(MAPS, MASKS.bool(), **AS_RELEASED),
        region_attention_loss(MAPS, MASKS, **AS_RELEASED),
    )


def test_bad_inputs_are_refused():
    with pytest.raises(ValueError, match="resize the masks"):
        region_attention_loss(MAPS, MASKS[..., :1], **AS_RELEASED)
    with pytest.raises(ValueError, match="unknown reading 'ratio'"):
        cross_attention_guidance_loss(MAPS, MASKS, reading="ratio", sigma=0, normalization="mean")
    with pytest.raises(ValueError, match="unknown reading 'foreground-background'"):
        region_attention_loss(MAPS, MASKS, **RATIO)
    with pytest.raises(ValueError, match="images, tokens, pixels"):
        self_attention_guidance_loss(MAPS, MASKS, normalization="mean")
    with pytest.raises(ValueError, match="unknown reading 'median'"):
        self_attention_guidance_loss(MAPS.flatten(2), MASKS.flatten(2), normalization="median")
