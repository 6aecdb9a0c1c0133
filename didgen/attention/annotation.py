"""Masks from attention (Eq. 7): the lesion's cross map sharpened by self-attention, Otsu, closing.

Shape legend: B images, K tokens, H and W of the image, h and w of a map.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from didgen.attention.captures import Positions
from didgen.attention.layers import CROSS_SIDE, SELF_SIDE
from didgen.attention.maps import is_constant, minmax, upsample
from didgen.attention.recorder import AttentionRecorder, CrossRequest
from didgen.attention.refinement import upsample_along_edges
from didgen.settings.annotation import AnnotationSettings, Cleaning

BINS = 256


@dataclass(frozen=True)
class Annotation:
    """Masks and how clear they were, for B images.

    masks: bool (B, H, W). maps: A_CS scaled to [0, 1] (B, H, W). thresholds: Otsu's, in [0, 1].
    contrast: part of the map's variance that the two classes explain, [0, 1]; near 1 means two
    clean levels. failed: no usable mask (constant or non-finite map, or a mask that is empty or
    covers everything); such a mask is empty.
    """

    masks: Tensor
    maps: Tensor
    thresholds: Tensor
    contrast: Tensor
    failed: Tensor


def sharpen(recorder: AttentionRecorder, cross_map: Tensor, settings: AnnotationSettings) -> Tensor:
    """A_CS = (A_S)^tau . A_C (Eq. 7): one cross map (B, h, w) on the self-attention grid.

    The map is enlarged (bicubic) to the grid of A_S. With the matrix power A_S is then applied
    tau times; tau = 0 gives the enlarged map itself. The elementwise power raises each entry of
    A_S, over the largest of its image (a factor of the whole map, which keeps small entries from
    becoming 0); it holds A_S, (B, N, N).
    """
    grid = recorder.self_grid
    v = upsample(cross_map.unsqueeze(1), grid).flatten(1)
    if settings.power == "elementwise":
        unit = torch.eye(v.shape[1], dtype=v.dtype, device=v.device)
        entries = recorder.apply_self_attention(unit.expand(len(v), -1, -1))
        entries = (entries / entries.amax((1, 2), keepdim=True)) ** settings.tau
        return (entries @ v.unsqueeze(2)).squeeze(2).unflatten(1, grid)
    for _ in range(settings.tau):
        v = recorder.apply_self_attention(v)
    return v.unflatten(1, grid)


def otsu(maps: Tensor, bins: int = BINS) -> tuple[Tensor, Tensor]:
    """Otsu's threshold of each map (B, h, w) in [0, 1], and its contrast, both (B,).

    The threshold is the upper edge of the histogram bin after which the classes' variance
    between them is largest (the middle one of equals), so the foreground is `map >= threshold`.
    The contrast is that variance over the total one; 0 for a constant map.
    """
    values = maps.detach().flatten(1).cpu().double()
    index = (values * bins).long().clamp(0, bins - 1)
    histogram = torch.zeros(len(values), bins, dtype=torch.float64)
    histogram.scatter_add_(1, index, torch.ones_like(values))
    weights = histogram / values.shape[1]
    centers = (torch.arange(bins, dtype=torch.float64) + 0.5) / bins
    below = weights.cumsum(1)[:, :-1]
    first = (weights * centers).cumsum(1)
    mean = first[:, -1:]
    between = (mean * below - first[:, :-1]) ** 2 / (below * (1 - below)).clamp_min(1e-12)
    # Between two separate levels every cut is equally good: take the middle of the plateau.
    best = between >= between.amax(1, keepdim=True) * (1 - 1e-9)
    edges = torch.arange(1, bins, dtype=torch.float64) / bins
    thresholds = (best * edges).sum(1) / best.sum(1)
    variance = (weights * (centers - mean) ** 2).sum(1)
    contrast = torch.where(variance > 1e-12, between.amax(1) / variance.clamp_min(1e-12), 0.0)
    return thresholds.to(maps), contrast.clamp(0, 1).to(maps)


def clean_mask(mask: NDArray[np.bool_], cleaning: Cleaning) -> NDArray[np.bool_]:
    """Close a mask (H, W): dilation, then erosion, by a disk; fill holes; keep one piece.

    Closing adds to a mask and never takes away, at the image's edge too.
    """
    if not mask.any():
        return mask.copy()
    radius = cleaning.closing_fraction * min(mask.shape)
    if radius >= 1:
        border = int(2 * radius) + 2
        padded = np.pad(mask, border)
        dilated = ndimage.distance_transform_edt(~padded) <= radius
        closed = ndimage.distance_transform_edt(dilated) > radius
        mask = closed[border:-border, border:-border]
    if cleaning.fill_holes:
        holes = ndimage.binary_fill_holes(mask) & ~mask
        mask = mask | (holes & (_piece_areas(holes) <= cleaning.max_hole * mask.size))
    if cleaning.keep_largest or cleaning.min_piece > 0:
        areas = _piece_areas(mask, diagonal=True, only_first=cleaning.keep_largest)
        mask = mask & (areas >= max(1, cleaning.min_piece * mask.size))
    return mask.astype(bool)


def _piece_areas(
    mask: NDArray[np.bool_], diagonal: bool = False, only_first: bool = False
) -> NDArray[np.int64]:
    """For each pixel the area of its piece, pixels; 0 outside, and in all but the largest."""
    pieces, count = ndimage.label(mask, structure=np.ones((3, 3)) if diagonal else None)
    areas = np.bincount(pieces.ravel(), minlength=count + 1)
    areas[0] = 0
    if only_first:
        areas[np.arange(len(areas)) != areas.argmax()] = 0
    return areas[pieces]


def mask_from_map(
    maps: Tensor,
    image_size: tuple[int, int],
    settings: AnnotationSettings,
    images: Tensor | None = None,
) -> Annotation:
    """M = Otsu(A_CS) (Eq. 7) at image size, then cleaned; maps (B, h, w) of any scale.

    The map is scaled to [0, 1], enlarged, thresholded and cleaned, image by image. images
    (B, 3, *image_size) in [-1, 1] are needed by the guided filter.

    Raises ValueError when the guided filter is asked for without images of that size.
    """
    finite = torch.isfinite(maps).flatten(1).all(1)
    maps = torch.where(finite[:, None, None], maps, 0.0).float()
    usable = finite & ~is_constant(maps)
    large = _enlarge(minmax(maps), image_size, images, settings)
    thresholds, contrast = otsu(large)
    raw = ((large >= thresholds[:, None, None]) & usable[:, None, None]).cpu().numpy()
    cleaned = np.stack([clean_mask(m, settings) for m in raw])
    masks = torch.from_numpy(cleaned).to(maps.device)
    pixels = masks.flatten(1)
    failed = ~usable | ~pixels.any(1) | pixels.all(1)
    masks = masks & ~failed[:, None, None]
    return Annotation(masks, large, thresholds, contrast, failed)


def _enlarge(
    maps: Tensor, size: tuple[int, int], images: Tensor | None, settings: AnnotationSettings
) -> Tensor:
    if settings.upsampling == "bicubic":
        return upsample(maps.unsqueeze(1), size).squeeze(1)
    if images is None or tuple(images.shape[-2:]) != tuple(size) or len(images) != len(maps):
        shape = None if images is None else tuple(images.shape)
        raise ValueError(
            f"the guided filter needs images of shape ({len(maps)}, 3, {size[0]}, {size[1]}), "
            f"found {shape}; give them, or set upsampling to 'bicubic'"
        )
    # The image may have broken where the map has not.
    images = torch.nan_to_num(images.to(maps.device), 0.0, 1.0, -1.0)
    filtered = upsample_along_edges(maps, images, settings.filter_radius, settings.filter_epsilon)
    return minmax(filtered)


def annotate(
    recorder: AttentionRecorder,
    image_size: int | tuple[int, int],
    settings: AnnotationSettings,
    positions: Positions | None = None,
    images: Tensor | None = None,
) -> Annotation:
    """Masks of the lesions in the recorded pass (Eq. 7), at image size (height, width).

    The first of the recorder's positions (or of `positions`) is the lesion's token. images: see
    `mask_from_map`. The paper reads the maps at the last sampling step.
    """
    with torch.no_grad():
        lesion = recorder.cross_maps(positions)[:, 0]
        sharp = sharpen(recorder, lesion, settings)
        return mask_from_map(sharp, _as_pair(image_size), settings, images)


def annotate_latents(
    unet: nn.Module,
    latents: Tensor | Sequence[Tensor],
    timestep: Tensor | int | Sequence[int],
    embeddings: Tensor,
    positions: Positions,
    image_size: int | tuple[int, int],
    settings: AnnotationSettings,
    images: Tensor | None = None,
) -> Annotation:
    """Masks of the lesions in latents (B, C, h, w) (Eq. 7): one conditional pass, no gradient.

    For a list of latents, with a list of their timesteps, A_CS is the mean of one pass each. A
    pass ends at the last layer it needs. Other arguments as in `annotate`.
    """
    single = isinstance(latents, Tensor)
    every: tuple[Any, Any] = ([latents], [timestep]) if single else (latents, timestep)
    moments = list(zip(*every, strict=True))
    total: Any = 0.0
    cross: CrossRequest = {"resolution": CROSS_SIDE, "positions": positions}
    with (
        torch.no_grad(),
        AttentionRecorder(unet, cross=cross, self_={"resolution": SELF_SIDE}) as recorder,
    ):
        for z, t in moments:
            recorder.run(z, t, embeddings, early_exit=True)
            total = total + sharpen(recorder, recorder.cross_maps()[:, 0], settings)
    maps = total / len(moments)
    with torch.autocast(maps.device.type, enabled=False):
        return mask_from_map(maps, _as_pair(image_size), settings, images)


def _as_pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size
