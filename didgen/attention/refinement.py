"""Edge-aware enlarging of maps: the guided filter (He, Sun, Tang, 2013), by box sums.

Shape legend: B images, C channels of the guide, H and W of the image, h and w of a map.
"""

import torch
from torch import Tensor
from torch.nn import functional

from didgen.attention.maps import upsample


def box_mean(x: Tensor, radius: int) -> Tensor:
    """Mean of x (B, C, H, W) over windows of 2 radius + 1 pixels, cut at the image's edge.

    By running sums: the cost does not depend on the radius.
    """
    for dim in (-2, -1):
        size = x.shape[dim]
        sums = functional.pad(x.cumsum(dim), (1, 0) if dim == -1 else (0, 0, 1, 0))
        place = torch.arange(size, device=x.device)
        high, low = (place + radius + 1).clamp_max(size), (place - radius).clamp_min(0)
        count = (high - low).to(x.dtype)
        total = sums.index_select(dim, high) - sums.index_select(dim, low)
        x = total / (count if dim == -1 else count[:, None])
    return x


def guided_filter(guide: Tensor, maps: Tensor, radius: int, epsilon: float) -> Tensor:
    """Filter maps (B, H, W) so that they have their edges where the guide (B, C, H, W) has its.

    In each window the result is the linear function of the guide that fits the map best; a pixel
    takes the mean of its windows' functions. epsilon: variance of the guide below which an edge
    is taken for noise, in squared units of the guide. A constant guide gives a blurred map.
    Computed in double precision: running sums of a large image cancel badly in single. Where the
    device has none (MPS), on the processor.

    Raises ValueError for other shapes, a radius below 1 or an epsilon that is not positive.
    """
    if guide.ndim != 4 or maps.shape != (guide.shape[0], *guide.shape[-2:]):
        raise ValueError(
            f"guide {tuple(guide.shape)} and maps {tuple(maps.shape)}: expected (B, C, H, W) and "
            "(B, H, W); enlarge the maps first"
        )
    if radius < 1 or not epsilon > 0:
        raise ValueError(f"radius {radius}, epsilon {epsilon}: expected at least 1, and above 0")
    channels = guide.shape[1]
    place = torch.device("cpu") if guide.device.type == "mps" else guide.device
    i, p = guide.to(place).double(), maps.to(place).double().unsqueeze(1)
    mean_i, mean_p = box_mean(i, radius), box_mean(p, radius)
    covariance = box_mean(i * p, radius) - mean_i * mean_p  # (B, C, H, W)
    products = (i[:, :, None] * i[:, None]).flatten(1, 2)
    spread = box_mean(products, radius).unflatten(1, (channels, channels))
    spread = (spread - mean_i[:, :, None] * mean_i[:, None]).permute(0, 3, 4, 1, 2)
    spread = spread + epsilon * torch.eye(channels, dtype=i.dtype, device=i.device)
    slope = torch.linalg.solve(spread, covariance.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    offset = mean_p - (slope * mean_i).sum(1, keepdim=True)
    result = (box_mean(slope, radius) * i).sum(1) + box_mean(offset, radius).squeeze(1)
    return result.to(maps)


def upsample_along_edges(
    maps: Tensor, images: Tensor, radius_fraction: float, epsilon: float
) -> Tensor:
    """Enlarge maps (B, h, w) to their images (B, 3, H, W) in [-1, 1], edges where those have them.

    Bicubic, then guided by the image; kept within each map's own range. radius_fraction: radius
    of the windows over the image's shorter side; epsilon for images in [0, 1].
    """
    size = tuple(images.shape[-2:])
    large = upsample(maps.unsqueeze(1), size).squeeze(1)
    radius = max(1, round(radius_fraction * min(size)))
    guide = (images.float().clamp(-1, 1) + 1) / 2
    filtered = guided_filter(guide, large, radius, epsilon)
    low, high = maps.amin((-2, -1)), maps.amax((-2, -1))
    return torch.minimum(torch.maximum(filtered, low[:, None, None]), high[:, None, None])
