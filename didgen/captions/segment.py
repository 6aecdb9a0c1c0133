"""A lesion mask from the image alone, for images that come without one."""

import numpy as np
from scipy import ndimage

from didgen.captions.morphology import binary_closing, binary_opening

# A component is plausible within these limits; outside them the image has no mask.
MIN_SHARE, MAX_SHARE = 0.004, 0.85
MIN_CONTRAST = 4.0  # CIELAB units between the component and its surroundings
# Otsu's threshold lies too far inside where a dark center stands out.
THRESHOLD_FACTOR = 0.8
MAX_VOTE = 15.0
MAX_FRAME_SHARE = 0.5  # of the image's frame that the component may touch


def segment(lab: np.ndarray, ignore: np.ndarray, thin: np.ndarray) -> np.ndarray | None:
    """The most central plausible component that differs from the surroundings, or None.

    Shapes: lab (H, W, 3) CIELAB, ignore (H, W) bool (dark corners), thin (H, W) bool (hair and
    other thin dark lines, which are painted over) -> (H, W) bool.
    A share of Otsu's threshold on the smoothed color distance to the frame's median color.
    """
    from skimage.filters import threshold_otsu

    height, width = ignore.shape
    side = min(height, width)
    smooth = _smooth_without(lab, thin & ~ignore, 0.016 * side)
    valid = ~ignore
    frame = valid & ~_inner(height, width, 0.12)
    if frame.sum() < 0.01 * frame.size or valid.sum() < 0.2 * valid.size:
        return None
    background = np.median(smooth[frame], axis=0)
    distance = np.linalg.norm(smooth - background, axis=-1)
    # What is brighter than the surroundings is glare or a bubble more often than a lesion.
    distance[smooth[..., 0] > background[0] + 8] = 0
    distance[ignore] = 0
    found = distance > THRESHOLD_FACTOR * threshold_otsu(distance[valid])
    radius = max(1, round(0.015 * side))
    found = binary_opening(found, radius)
    found = binary_closing(np.pad(found, 2 * radius), 2 * radius)
    found = found[2 * radius : -2 * radius, 2 * radius : -2 * radius]
    return _pick(ndimage.binary_fill_holes(found), distance, valid)


def _smooth_without(lab: np.ndarray, left_out: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian mean of the pixels that are not left out."""
    weight = np.where(left_out, np.float32(0.02), np.float32(1.0))
    total = ndimage.gaussian_filter(lab * weight[..., None], (sigma, sigma, 0))
    return total / ndimage.gaussian_filter(weight, sigma)[..., None]


def _inner(height: int, width: int, margin: float) -> np.ndarray:
    inner = np.zeros((height, width), dtype=bool)
    top, left = max(1, round(margin * height)), max(1, round(margin * width))
    inner[top : height - top, left : width - left] = True
    return inner


def _pick(found: np.ndarray, distance: np.ndarray, valid: np.ndarray) -> np.ndarray | None:
    """The plausible component with the largest area weighted by how central it is."""
    labels, count = ndimage.label(found)
    height, width = found.shape
    outer = ~_inner(height, width, 0.0)
    rows = (np.arange(height) + 0.5) / height - 0.5
    columns = (np.arange(width) + 0.5) / width - 0.5
    weight = np.exp(-(rows[:, None] ** 2 + columns[None] ** 2) / (2 * 0.2**2))
    best, best_score = None, 0.0
    for index in range(1, count + 1):
        component = labels == index
        share = component.mean()
        if not MIN_SHARE <= share <= MAX_SHARE:
            continue
        if (component & outer).sum() > MAX_FRAME_SHARE * outer.sum():
            continue
        outside = valid & ~found
        if not outside.any():
            continue
        if distance[component].mean() - distance[outside].mean() < MIN_CONTRAST:
            continue
        # Capped: a bright sticker at the edge must not outweigh a faint spot in the middle.
        score = float((weight * np.minimum(distance, MAX_VOTE))[component].sum())
        if score > best_score:
            best, best_score = component, score
    return best
