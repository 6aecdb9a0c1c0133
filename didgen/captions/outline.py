"""Solidity, ratio of the main axes and asymmetry of a mask's largest component."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage


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


def measure_outline(mask: np.ndarray) -> Outline:
    """Measure a mask (H, W) bool with at least one pixel."""
    mask = largest_component(mask)
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
