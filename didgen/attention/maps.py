"""Arithmetic on maps and masks (B, K, H, W): scaling, smoothing, resizing.

Shape legend: B images, K maps an image, H and W height and width.
"""

import torch
from torch import Tensor
from torch.nn import functional

# A map whose spread is below this part of its largest value is constant up to rounding
# (single precision, summed over a thousand pixels a few times over).
CONSTANT_SPREAD = 1e-5


def is_constant(maps: Tensor) -> Tensor:
    """Whether each map (..., H, W) is constant up to single-precision rounding, (...) bool."""
    low, high = maps.amin((-2, -1)), maps.amax((-2, -1))
    return high - low <= CONSTANT_SPREAD * torch.maximum(high.abs(), low.abs())


def minmax(maps: Tensor) -> Tensor:
    """Scale each map (..., H, W) to [0, 1] by its own extremes; a constant map becomes zeros.

    The gradient, also that through the extremes, is kept; it is zero for a constant map.
    """
    low = maps.amin((-2, -1), keepdim=True)
    spread = maps.amax((-2, -1), keepdim=True) - low
    constant = is_constant(maps)[..., None, None]
    scaled = (maps - low) / torch.where(constant, torch.ones_like(spread), spread)
    return torch.where(constant, torch.zeros_like(scaled), scaled)


def gaussian_kernel(sigma: float, width: int = 3) -> Tensor:
    """One-dimensional Gaussian weights (width,) of true standard deviation `sigma` pixels, sum 1.

    Raises ValueError for an even width or a sigma that is not positive.
    """
    if width % 2 == 0 or width < 1 or not sigma > 0:
        raise ValueError(f"expected an odd width and sigma > 0, found width {width}, sigma {sigma}")
    offsets = torch.arange(width, dtype=torch.float64) - width // 2
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    return weights / weights.sum()


def gaussian_smooth(maps: Tensor, sigma: float, width: int = 3) -> Tensor:
    """Smooth each map (B, K, H, W) with a width x width Gaussian; edges are reflected.

    `sigma` is the true standard deviation in pixels of the map; 0 leaves the maps alone.

    Raises ValueError when a map is too small to be reflected.
    """
    if sigma == 0:
        return maps
    half = width // 2
    if min(maps.shape[-2:]) <= half:
        raise ValueError(
            f"maps of {tuple(maps.shape[-2:])} are too small to reflect {half} pixels at the edge; "
            "use a smaller kernel"
        )
    weights = gaussian_kernel(sigma, width).to(maps)
    flat = _reflect(_reflect(maps.flatten(0, 1).unsqueeze(1), half, -1), half, -2)
    flat = functional.conv2d(flat, weights.view(1, 1, width, 1))
    flat = functional.conv2d(flat, weights.view(1, 1, 1, width))
    return flat.squeeze(1).unflatten(0, maps.shape[:2])


def _reflect(maps: Tensor, half: int, dim: int) -> Tensor:
    """Maps with `half` more pixels at both ends of a side, mirrored about the outermost ones.

    In pieces: on a GPU the gradient of `functional.pad` adds up in whatever order it comes.
    """
    if half == 0:
        return maps
    first = maps.narrow(dim, 1, half).flip(dim)
    last = maps.narrow(dim, maps.shape[dim] - 1 - half, half).flip(dim)
    return torch.cat([first, maps, last], dim)


def resize_mask(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize masks (B, K, H, W), bool or [0, 1], to (height, width): covered part of each pixel.

    The result is soft; its mean is the mask's mean when the sizes divide.
    """
    floating = masks if masks.is_floating_point() else masks.float()
    return functional.interpolate(floating, size=size, mode="area")


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge maps (B, K, H, W) to (height, width), bicubic, kept within each map's own range."""
    larger = functional.interpolate(maps, size=size, mode="bicubic", align_corners=False)
    low = maps.amin((-2, -1), keepdim=True)
    high = maps.amax((-2, -1), keepdim=True)
    return torch.minimum(torch.maximum(larger, low), high)
