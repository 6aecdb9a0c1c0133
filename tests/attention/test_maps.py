import math

import pytest
import torch

from didgen.attention.maps import (
    gaussian_kernel,
    gaussian_smooth,
    is_constant,
    minmax,
    resize_mask,
    upsample,
)
from didgen.settings.guidance import LayoutGuidance


def test_minmax_scales_each_map_by_its_own_extremes():
    maps = torch.tensor([[[[1.0, 2.0], [3.0, 5.0]], [[0.0, -4.0], [-2.0, -1.0]]]])
    expected = torch.tensor([[[[0.0, 0.25], [0.5, 1.0]], [[1.0, 0.0], [0.5, 0.75]]]])
    torch.testing.assert_close(minmax(maps), expected)


def test_minmax_does_not_see_scale_or_offset():
    maps = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(minmax(0.01 * maps + 3), minmax(maps))


def test_constant_map_becomes_zeros_with_a_zero_gradient():
    maps = torch.full((1, 2, 3, 3), 0.013, requires_grad=True)
    scaled = minmax(maps * torch.tensor([1.0, 1.0 + 1e-8]).view(1, 2, 1, 1))
    scaled.sum().backward()
    assert torch.equal(scaled, torch.zeros(1, 2, 3, 3))
    assert torch.equal(maps.grad, torch.zeros(1, 2, 3, 3))
    assert is_constant(maps).tolist() == [[True, True]]
    assert is_constant(torch.zeros(1, 1, 3, 3)).item()
    assert not is_constant(torch.eye(3)[None, None]).item()


def test_minmax_gradient_agrees_with_finite_differences():
    maps = torch.rand(1, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(minmax, maps)


def test_not_a_number_is_not_hidden():
    assert torch.isnan(minmax(torch.tensor([[[[0.0, math.nan], [1.0, 2.0]]]]))).any()


def test_kernel_is_that_of_attend_and_excite():
    # exp(-1) / (1 + 2 exp(-1)) = 0.2119 beside 0.5761.
    expected = torch.tensor([0.21194, 0.57612, 0.21194], dtype=torch.float64)
    torch.testing.assert_close(
        gaussian_kernel(LayoutGuidance().smoothing_sigma), expected, atol=1e-5, rtol=0
    )
    narrow = torch.tensor([0.10651, 0.78699, 0.10651], dtype=torch.float64)
    torch.testing.assert_close(gaussian_kernel(0.5), narrow, atol=1e-5, rtol=0)


def test_smoothing_spreads_a_point_and_leaves_a_constant():
    point = torch.zeros(1, 1, 5, 5)
    point[0, 0, 2, 2] = 1.0
    k = gaussian_kernel(0.7).float()
    torch.testing.assert_close(gaussian_smooth(point, 0.7)[0, 0, 1:4, 1:4], torch.outer(k, k))
    flat = torch.full((2, 3, 4, 6), 0.4)
    torch.testing.assert_close(gaussian_smooth(flat, 0.7), flat)
    assert gaussian_smooth(point, sigma=0) is point


def test_smoothing_reflects_at_the_edge():
    # Reflection without repeating the edge: row 0 sees row 1 twice.
    ramp = torch.arange(3.0).view(1, 1, 3, 1).expand(1, 1, 3, 3)
    side = float(gaussian_kernel(0.7)[0])
    torch.testing.assert_close(
        gaussian_smooth(ramp, 0.7)[0, 0, :, 0], torch.tensor([2 * side, 1, 2 - 2 * side])
    )


@pytest.mark.parametrize("size", [1, 3, 5])
def test_smoothing_is_a_convolution_of_the_reflected_map(size):
    maps = torch.rand(2, 2, 6, 7, dtype=torch.float64, requires_grad=True)
    k = gaussian_kernel(0.8, size)
    padded = torch.nn.functional.pad(maps, (size // 2,) * 4, mode="reflect").flatten(0, 1)
    expected = torch.nn.functional.conv2d(padded[:, None], torch.outer(k, k)[None, None])
    expected = expected.view(2, 2, 6, 7)
    found = gaussian_smooth(maps, 0.8, size)
    torch.testing.assert_close(found, expected)
    weights = torch.rand(2, 2, 6, 7, dtype=torch.float64)
    gradients = [torch.autograd.grad((m * weights).sum(), maps)[0] for m in (found, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(("sigma", "size"), [(0.0, 3), (-1.0, 3), (1.0, 4)])
def test_bad_kernels_are_refused(sigma, size):
    with pytest.raises(ValueError, match="odd width"):
        gaussian_kernel(sigma, size)


def test_map_too_small_to_reflect_is_refused():
    with pytest.raises(ValueError, match="too small"):
        gaussian_smooth(torch.zeros(1, 1, 1, 4), 0.7)


def test_masks_shrink_to_covered_fractions():
    mask = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    mask[0, 0, :2, :3] = True
    expected = torch.tensor([[[[1.0, 0.5], [0.0, 0.0]]]])
    torch.testing.assert_close(resize_mask(mask, (2, 2)), expected)
    soft = torch.rand(1, 1, 12, 12)
    torch.testing.assert_close(resize_mask(soft, (4, 4)).mean(), soft.mean())


def test_upsampling_stays_within_the_range():
    step = torch.zeros(1, 1, 8, 8)
    step[..., 4:] = 1.0
    large = upsample(step, (32, 32))
    assert large.shape == (1, 1, 32, 32)
    assert float(large.min()) == 0.0 and float(large.max()) == 1.0
    torch.testing.assert_close(upsample(step, (8, 8)), step)
