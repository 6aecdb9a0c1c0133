"""Masks from attention (Eq. 7): the lesion's cross map sharpened by self-attention, Otsu, closing.

Shape legend: B images, K tokens, H and W of the image, h and w of a map.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from didgen.attention.captures import Positions
from didgen.attention.maps import is_constant, minmax, upsample
from didgen.attention.recorder import AttentionRecorder

TAU = 4
BINS = 256


@dataclass(frozen=True)
class Cleaning:
    """How a thresholded mask is cleaned.

    closing_fraction: radius of the closing's disk over the image's shorter side (8 pixels at
    512, half a pixel of a 32x32 map); a radius under one pixel closes nothing. fill_holes:
    also fill holes too large for the disk. keep_largest: keep one piece (8-connected). The
    paper closes only; the other two are ours.
    """

    closing_fraction: float = 1 / 64
    fill_holes: bool = True
    keep_largest: bool = True


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


def sharpen(recorder: AttentionRecorder, cross_map: Tensor, tau: int = TAU) -> Tensor:
    """A_CS = (A_S)^tau . A_C (Eq. 7): one cross map (B, h, w) on the self-attention grid.

    The power is the matrix power: the map is enlarged (bicubic) to the grid of A_S, which is
    then applied tau times. tau = 0 gives the enlarged map itself.
    """
    grid = recorder.self_grid
    v = upsample(cross_map.unsqueeze(1), grid).flatten(1)
    for _ in range(tau):
        v = recorder.apply_self_attention(v)
    return v.unflatten(1, grid)


def otsu(maps: Tensor, bins: int = BINS) -> tuple[Tensor, Tensor]:
    """Otsu's threshold of each map (B, h, w) in [0, 1], and its contrast, both (B,).

    The threshold is the upper edge of the histogram bin after which the classes' variance
    between them is largest (the middle one of equals), so the foreground is `map >= threshold`.
    The contrast is that variance over the total one; 0 for a constant map.
    """
    values = maps.detach().flatten(1).double().cpu()
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


def clean_mask(mask: NDArray[np.bool_], cleaning: Cleaning | None = None) -> NDArray[np.bool_]:
    """Close a mask (H, W): dilation, then erosion, by a disk; fill holes; keep one piece.

    Closing adds to a mask and never takes away, at the image's edge too.
    """
    cleaning = cleaning or Cleaning()
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
        mask = ndimage.binary_fill_holes(mask)
    if cleaning.keep_largest:
        pieces, count = ndimage.label(mask, structure=np.ones((3, 3)))
        if count > 1:
            mask = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
    return mask.astype(bool)


def mask_from_map(
    maps: Tensor, image_size: tuple[int, int], cleaning: Cleaning | None = None
) -> Annotation:
    """M = Otsu(A_CS) (Eq. 7) at image size, then cleaned; maps (B, h, w) of any scale.

    The map is scaled to [0, 1], enlarged (bicubic), thresholded and cleaned, image by image.
    """
    finite = torch.isfinite(maps).flatten(1).all(1)
    maps = torch.where(finite[:, None, None], maps, 0.0).float()
    usable = finite & ~is_constant(maps)
    large = upsample(minmax(maps).unsqueeze(1), image_size).squeeze(1)
    thresholds, contrast = otsu(large)
    raw = ((large >= thresholds[:, None, None]) & usable[:, None, None]).cpu().numpy()
    cleaned = np.stack([clean_mask(m, cleaning) for m in raw])
    masks = torch.from_numpy(cleaned).to(maps.device)
    pixels = masks.flatten(1)
    failed = ~usable | ~pixels.any(1) | pixels.all(1)
    masks = masks & ~failed[:, None, None]
    return Annotation(masks, large, thresholds, contrast, failed)


def annotate(
    recorder: AttentionRecorder,
    image_size: int | tuple[int, int],
    positions: Positions | None = None,
    tau: int = TAU,
    cleaning: Cleaning | None = None,
) -> Annotation:
    """Masks of the lesions in the recorded pass (Eq. 7), at image size (height, width).

    The first of the recorder's positions (or of `positions`) is the lesion's token. The paper
    reads the maps at the last sampling step.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    with torch.no_grad():
        lesion = recorder.cross_maps(positions)[:, 0]
        sharp = sharpen(recorder, lesion, tau)
        return mask_from_map(sharp, size, cleaning)


def annotate_latents(
    unet: nn.Module,
    latents: Tensor,
    timestep: Tensor | int,
    embeddings: Tensor,
    positions: Positions,
    image_size: int | tuple[int, int],
    tau: int = TAU,
    cross_resolution: int = 16,
    self_resolution: int = 32,
    cleaning: Cleaning | None = None,
) -> Annotation:
    """Masks of the lesions in latents (B, C, h, w) (Eq. 7): one conditional pass, no gradient.

    The pass ends at the last layer it needs. Arguments as in `annotate`.
    """
    cross = {"resolution": cross_resolution, "positions": positions}
    with (
        torch.no_grad(),
        AttentionRecorder(unet, cross=cross, self_={"resolution": self_resolution}) as recorder,
    ):
        recorder.run(latents, timestep, embeddings, early_exit=True)
        return annotate(recorder, image_size, None, tau, cleaning)
