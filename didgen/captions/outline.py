"""What a mask says: size, position, shape, symmetry; and how sharply its border ends."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from didgen.captions.attributes import (
    Attributes,
    Border,
    Shape,
    Symmetry,
    position_word,
    size_word,
)

# Irregular below this solidity, else oval above this ratio of the main axes.
IRREGULAR_BELOW = 0.945
OVAL_ABOVE = 1.22
ASYMMETRIC_ABOVE = 0.16
# Border: width of the transition (contrast over gradient) as a share of the image's side.
BLURRED_ABOVE = 0.07
# The profile across the border: this far to both sides (share of the side), in so many steps.
REACH = 0.1
PROFILE_STEPS = 20
# Below this contrast (CIELAB units) an edge is texture, not a border.
MIN_CONTRAST = 10.0
# Ripples below this share of the outline's own width are smoothed away before it is judged.
SMOOTHING = 0.025


@dataclass(frozen=True)
class OutlineMeasures:
    """solidity: area over that of the convex hull, (0, 1]; axis_ratio: long over short axis, >= 1;
    asymmetry: area left unmatched when folded over the main axes, mean of the two, as a share of
    the area, [0, 2)."""

    solidity: float
    axis_ratio: float
    asymmetry: float


@dataclass(frozen=True)
class Layout:
    """A mask's share of the field, its centroid in shares of height and width, its outline."""

    share: float
    row: float
    column: float
    outline: OutlineMeasures

    @classmethod
    def of(cls, mask: np.ndarray) -> "Layout":
        """Measure a mask, bool (H, W), not empty."""
        rows, columns = np.nonzero(mask)
        return cls(
            share=float(mask.mean()),
            row=float((rows.mean() + 0.5) / mask.shape[0]),
            column=float((columns.mean() + 0.5) / mask.shape[1]),
            outline=measure_outline(mask),
        )

    def words(self) -> dict[str, str]:
        """Size, position, shape and symmetry."""
        return {
            "size": size_word(self.share),
            "position": position_word(self.row, self.column),
            "shape": shape_word(self.outline),
            "symmetry": symmetry_word(self.outline),
        }


def with_layout(attributes: Attributes, mask: np.ndarray) -> Attributes:
    """The attributes with the size, position, shape and symmetry of a mask, bool (H, W).

    What an image alone shows (colors, border, tone, hair, artifacts) stays.
    """
    return attributes.model_copy(update=Layout.of(mask).words())


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


def shape_word(outline: OutlineMeasures) -> Shape:
    """Irregular by solidity, else oval by the ratio of the main axes, else round."""
    if outline.solidity < IRREGULAR_BELOW:
        return "irregular"
    return "oval" if outline.axis_ratio > OVAL_ABOVE else "round"


def symmetry_word(outline: OutlineMeasures) -> Symmetry:
    """Symmetry from the mismatch when folded over the main axes."""
    return "asymmetric" if outline.asymmetry > ASYMMETRIC_ABOVE else "symmetric"


def border_word(width: float) -> Border:
    """Border from the transition's width as a share of the side."""
    return "blurred" if width > BLURRED_ABOVE else "sharp"


def measure_outline(mask: np.ndarray) -> OutlineMeasures:
    """Measure a mask (H, W) bool with at least one pixel."""
    mask = smooth_outline(largest_component(mask))
    rows, columns = np.nonzero(mask)
    points = np.stack([columns - columns.mean(), rows - rows.mean()], axis=1).astype(float)
    second = points.T @ points / len(points) + np.eye(2) / 12
    values, vectors = np.linalg.eigh(second)
    return OutlineMeasures(
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
    lab: np.ndarray, mask: np.ndarray, corners: np.ndarray, sectors: int = 16
) -> float:
    """Median width of the border's transition over sectors, as a share of the shorter side.

    In each sector the color, along the axis from outside to inside, is averaged by its distance
    from the contour; the width is the contrast between both ends of this profile over its steepest
    slope. 1.0 stands for "no contrast". Shapes: lab (H, W, 3), mask and corners (H, W) bool.
    """
    side = min(mask.shape)
    depth = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
    # A small mask is not deep enough for the full reach.
    reach = min(REACH * side, 0.8 * float(depth.max()))
    near = (np.abs(depth) < reach) & ~corners
    if not (near & mask).any() or not (near & ~mask).any():
        return 1.0
    rows, columns = np.nonzero(near)
    colors, depth = lab[near], depth[near]
    across = colors[depth < 0].mean(axis=0) - colors[depth > 0].mean(axis=0)
    across /= max(float(np.linalg.norm(across)), 1e-6)
    center = np.argwhere(mask).mean(axis=0)
    angle = np.arctan2(rows - center[0], columns - center[1])
    sector = ((angle + np.pi) / (2 * np.pi) * sectors).astype(int) % sectors
    # About one step a pixel, or the profile would have holes.
    steps = int(np.clip(2 * reach, 4, PROFILE_STEPS))
    cell = sector * steps + np.clip((depth / reach + 1) / 2 * steps, 0, steps - 1).astype(int)
    size = sectors * steps
    counts = np.bincount(cell, minlength=size).reshape(sectors, steps)
    sums = np.bincount(cell, weights=colors @ across, minlength=size).reshape(sectors, steps)
    full = (counts > 0).all(axis=1)
    if not full.any():
        return 1.0
    profiles = sums[full] / counts[full]
    ends = max(1, steps // 7)
    contrast = profiles[:, :ends].mean(axis=1) - profiles[:, -ends:].mean(axis=1)
    # Slope over two steps: one step alone is too noisy.
    slope = (profiles[:, :-2] - profiles[:, 2:]).max(axis=1) * steps / (4 * reach / side)
    widths = np.where(contrast < MIN_CONTRAST, 1.0, contrast / np.maximum(slope, 1e-6))
    return float(min(1.0, np.median(widths)))
