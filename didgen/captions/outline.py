"""The outline of a mask: shape, symmetry, and how sharply its border ends in the image."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from didgen.captions.attributes import Border, Shape, Symmetry

# Irregular below this solidity, else oval above this ratio of the main axes.
IRREGULAR_BELOW = 0.945
OVAL_ABOVE = 1.22
ASYMMETRIC_ABOVE = 0.16
# Border: width of the transition (contrast over gradient) as a share of the image's side.
BLURRED_ABOVE = 0.065
# Ripples below this share of the outline's own width are smoothed away before it is judged.
SMOOTHING = 0.025


@dataclass(frozen=True)
class Outline:
    """solidity: area over that of the convex hull, (0, 1]; axis_ratio: long over short axis, >= 1;
    asymmetry: area left unmatched when folded over the main axes, mean of the two, as a share of
    the area, [0, 2)."""

    solidity: float
    axis_ratio: float
    asymmetry: float


def largest_component(mask: np.ndarray) -> np.ndarray:
    """The largest component with its holes filled. Shape: (H, W) bool."""
    labels, count = ndimage.label(mask)
    if count > 1:
        counts = np.bincount(labels.ravel())
        counts[0] = 0
        mask = labels == counts.argmax()
    return ndimage.binary_fill_holes(mask)


def smooth_outline(mask: np.ndarray) -> np.ndarray:
    """The mask without the ripples of a jagged annotation; small masks stay as they are."""
    sigma = SMOOTHING * float(np.sqrt(mask.sum()))
    if sigma < 0.5:
        return mask
    blurred = ndimage.gaussian_filter(mask.astype(np.float32), sigma, mode="nearest", truncate=3)
    smooth = blurred > 0.5
    return smooth if smooth.any() else mask


def shape_word(outline: Outline) -> Shape:
    """Irregular by solidity, else oval by the ratio of the main axes, else round."""
    if outline.solidity < IRREGULAR_BELOW:
        return "irregular"
    return "oval" if outline.axis_ratio > OVAL_ABOVE else "round"


def symmetry_word(outline: Outline) -> Symmetry:
    """Symmetry from the mismatch when folded over the main axes."""
    return "asymmetric" if outline.asymmetry > ASYMMETRIC_ABOVE else "symmetric"


def border_word(width: float) -> Border:
    """Border from the transition's width as a share of the side."""
    return "blurred" if width > BLURRED_ABOVE else "sharp"


def measure_outline(mask: np.ndarray) -> Outline:
    """Measure a mask (H, W) bool with at least one pixel."""
    mask = smooth_outline(largest_component(mask))
    rows, columns = np.nonzero(mask)
    points = np.stack([columns - columns.mean(), rows - rows.mean()], axis=1).astype(float)
    second = points.T @ points / len(points) + np.eye(2) / 12
    values, vectors = np.linalg.eigh(second)
    return Outline(
        solidity=_solidity(mask),
        axis_ratio=float(np.sqrt(values[1] / values[0])),
        asymmetry=_asymmetry(mask, (rows.mean(), columns.mean()), values, vectors),
    )


def _solidity(mask: np.ndarray) -> float:
    """Area over the area of the convex hull of the boundary pixels' corners."""
    from scipy.spatial import ConvexHull

    edge = mask & ~ndimage.binary_erosion(mask)
    rows, columns = np.nonzero(edge)
    # Midpoints of the pixels' sides instead of their corners: a disc then has solidity 1.
    steps = np.array([(0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5)])
    points = (np.stack([rows, columns], axis=1)[:, None] + steps).reshape(-1, 2)
    return float(min(1.0, mask.sum() / ConvexHull(points).volume))


def _asymmetry(
    mask: np.ndarray, center: tuple[float, float], values: np.ndarray, vectors: np.ndarray
) -> float:
    """Mean over both main axes of the mismatch between the mask and its mirror image."""
    half = 64
    grid = (np.arange(2 * half) - half + 0.5) / half * 3.2
    u, v = np.meshgrid(grid, grid)  # in units of the axes' standard deviations
    short, long = np.sqrt(values)
    columns = center[1] + u * long * vectors[0, 1] + v * short * vectors[0, 0]
    rows = center[0] + u * long * vectors[1, 1] + v * short * vectors[1, 0]
    r, c = np.rint(rows).astype(int), np.rint(columns).astype(int)
    inside = (r >= 0) & (r < mask.shape[0]) & (c >= 0) & (c < mask.shape[1])
    upright = np.zeros(u.shape, dtype=bool)
    upright[inside] = mask[r[inside], c[inside]]
    area = max(1, int(upright.sum()))
    return float(np.mean([(upright ^ np.flip(upright, axis)).sum() / area for axis in (0, 1)]))


def border_width(
    lab: np.ndarray, mask: np.ndarray, corners: np.ndarray, sectors: int = 12
) -> float:
    """Median width of the border's transition over sectors, as a share of the shorter side.

    In each sector: color contrast between a ring inside and a ring outside the contour, divided
    by the steep end (90th percentile) of the gradient along that contrast near the contour.
    1.0 stands for "no contrast". Shapes: lab (H, W, 3), mask and corners (H, W) bool.
    """
    side = min(mask.shape)
    reach = 0.06 * side
    distance = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
    near = (np.abs(distance) <= 2 * reach) & ~corners
    outer, inner = near & ~mask, near & mask
    if not outer.any() or not inner.any():
        return 1.0
    across = lab[outer].mean(axis=0) - lab[inner].mean(axis=0)
    across /= max(float(np.linalg.norm(across)), 1e-6)
    profile = ndimage.gaussian_filter(lab @ across, 0.008 * side)
    gradient = np.hypot(*np.gradient(profile))
    rows, columns = np.nonzero(near)
    center = np.argwhere(mask).mean(axis=0)
    angle = np.arctan2(rows - center[0], columns - center[1])
    sector = ((angle + np.pi) / (2 * np.pi) * sectors).astype(int) % sectors
    table = (profile[near], gradient[near], distance[near])
    widths = [
        _sector_width(*(column[sector == k] for column in table), reach, side)
        for k in range(sectors)
    ]
    known = [width for width in widths if width is not None]
    return float(np.median(known)) if known else 1.0


def _sector_width(
    value: np.ndarray, gradient: np.ndarray, depth: np.ndarray, reach: float, side: int
) -> float | None:
    """Width of the transition in one sector; None where the sector is too small to tell."""
    inside, outside, edge = depth > 0.7 * reach, depth < -0.7 * reach, np.abs(depth) < 0.7 * reach
    if min(inside.sum(), outside.sum(), edge.sum()) < 3:
        return None
    contrast = float(np.median(value[outside]) - np.median(value[inside]))
    if contrast < 3.0:
        return 1.0
    return min(1.0, contrast / max(float(np.percentile(gradient[edge], 90)), 1e-6) / side)
