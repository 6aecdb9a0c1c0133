"""Distance between images in the feature maps of a network, and diversity as its mean.

The form of LPIPS (Zhang et al. 2018, CVPR) without its learned weights: every channel counts alike.
Its numbers are not LPIPS values and must not be compared with them.
Shapes: a list of maps (N, C_l, h_l, w_l), one a layer, for N images.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def unit_channels(maps: Sequence[Tensor]) -> list[Tensor]:
    """Each pixel's channels scaled to length 1 (a pixel of zeros stays), in double precision."""
    return [m.double() / m.double().norm(dim=1, keepdim=True).clamp_min(1e-10) for m in maps]


def perceptual_distance(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Mean over layers of the mean over pixels of the squared distance of unit channels, (N,).

    In [0, 4], and at most 2 for features that are never negative; 0 for equal images.
    Raises: ValueError for other layers or shapes.
    """
    shapes = [tuple(m.shape) for m in first], [tuple(m.shape) for m in second]
    if shapes[0] != shapes[1] or not first:
        raise ValueError(f"found maps of shapes {shapes[0]} and {shapes[1]}, expected equal ones")
    layers = [
        (a - b).square().sum(1).mean((1, 2))
        for a, b in zip(unit_channels(first), unit_channels(second), strict=True)
    ]
    return torch.stack(layers).mean(0)


def mean_pairwise_distance(maps: Sequence[Tensor]) -> float:
    """Diversity of N images: the mean distance of all their pairs.

    Raises: ValueError for fewer than two images.
    """
    count = len(maps[0]) if maps else 0
    if count < 2:
        raise ValueError(f"found {count} images, expected at least two to compare")
    left, right = torch.triu_indices(count, count, offset=1)
    return float(perceptual_distance([m[left] for m in maps], [m[right] for m in maps]).mean())
