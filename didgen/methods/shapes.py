"""A small model of lesion shapes: principal components of aligned signed distance maps.

After Leventon, Grimson and Faugeras 2000 (CVPR), with scikit-learn's PCA. Shapes: masks are bool
(H, W); a field is float32 (GRID, GRID), positive inside, in units of the square root of the
lesion's area, with the lesion's centroid at its center.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

GRID = 64
# The field reaches this far from the centroid, in square roots of the area.
REACH = 1.6
# Distances beyond this say nothing of the outline.
CLIP = 0.35
COMPONENTS = 16


class ShapeError(ValueError):
    """Masks of which no shape can be learned."""


@dataclass(frozen=True)
class Place:
    """Where a lesion lies and how large it is: centroid (row, column) and square root of its area,
    as shares of the image's height, width and of the square root of the image's area."""

    row: float
    column: float
    scale: float


def signed_distance(mask: np.ndarray) -> np.ndarray:
    """Distance to the border in px, positive inside, float32 (H, W). The image's edge is no border.

    Raises: `ShapeError` for a mask that is empty or full.
    """
    if not mask.any() or mask.all():
        kind = "an empty" if not mask.any() else "a full"
        raise ShapeError(f"found {kind} mask, expected lesion and skin; leave its image out")
    inside, outside = (ndimage.distance_transform_edt(part) for part in (mask, ~mask))
    # Half a pixel each way: the border lies between pixels.
    return np.where(mask, inside - 0.5, 0.5 - outside).astype(np.float32)


def read_distance(distance: np.ndarray, places: np.ndarray) -> np.ndarray:
    """A signed distance map (H, W) read at places (2, ...) in px, beyond its edges too.

    There it falls by a pixel a pixel: a lesion cut by the edge ends as far beyond as it is deep.
    """
    last = np.array(distance.shape).reshape(2, *[1] * (places.ndim - 1)) - 1
    beyond = np.sqrt(np.square(places - places.clip(0, last)).sum(0))
    return ndimage.map_coordinates(distance, places, order=1, mode="nearest") - beyond


def place_of(mask: np.ndarray) -> Place:
    """Where the lesion of a mask lies, and its size."""
    rows, columns = np.nonzero(mask)
    height, width = mask.shape
    return Place(
        (float(rows.mean()) + 0.5) / height,
        (float(columns.mean()) + 0.5) / width,
        float(np.sqrt(mask.mean())),
    )


def _steps() -> np.ndarray:
    """Offsets of the field's pixels from the centroid, in square roots of the area."""
    return ((np.arange(GRID) + 0.5) / GRID * 2 - 1) * REACH


def aligned(mask: np.ndarray) -> np.ndarray:
    """The field of a mask, (GRID, GRID). Raises: `ShapeError` for an empty or full mask."""
    distance = signed_distance(mask)
    place, side = place_of(mask), float(np.sqrt(mask.sum()))
    rows = place.row * mask.shape[0] - 0.5 + _steps() * side
    columns = place.column * mask.shape[1] - 0.5 + _steps() * side
    field = read_distance(distance, np.stack(np.meshgrid(rows, columns, indexing="ij"))) / side
    return field.clip(-CLIP, CLIP).astype(np.float32)


def draw(field: np.ndarray, place: Place, angle: float, shape: tuple[int, int]) -> np.ndarray:
    """The lesion of a field, turned by `angle` (radians) and put at a place, bool (H, W)."""
    height, width = shape
    side = place.scale * float(np.sqrt(height * width))
    rows, columns = np.mgrid[:height, :width].astype(np.float64)
    y = (rows + 0.5 - place.row * height) / side
    x = (columns + 0.5 - place.column * width) / side
    cosine, sine = np.cos(angle), np.sin(angle)
    turned = (cosine * y - sine * x, sine * y + cosine * x)
    grid = [(part / REACH + 1) / 2 * GRID - 0.5 for part in turned]
    return ndimage.map_coordinates(field, grid, order=1, mode="constant", cval=-CLIP) > 0


@dataclass(frozen=True)
class ShapeModel:
    """mean (G*G,), components (K, G*G) and the standard deviation along each (K,)."""

    mean: np.ndarray
    components: np.ndarray
    deviations: np.ndarray

    def coordinates(self, mask: np.ndarray) -> np.ndarray:
        """Where a mask's shape lies in the model, (K,)."""
        return self.components @ (aligned(mask).ravel() - self.mean)

    def field(self, coordinates: np.ndarray) -> np.ndarray:
        """The shape at a point (K,) of the model, (GRID, GRID)."""
        return (self.mean + coordinates @ self.components).reshape(GRID, GRID)


def fit_shapes(masks: Iterable[np.ndarray], components: int = COMPONENTS) -> ShapeModel:
    """Learn the shapes of masks; those that reach the image's edge are cut lesions and left out.

    Deterministic. Raises: `ShapeError` with fewer than three whole lesions.
    """
    from sklearn.decomposition import PCA

    fields = [aligned(mask).ravel() for mask in masks if is_whole(mask)]
    if len(fields) < 3:
        raise ShapeError(
            f"found {len(fields)} masks that lie wholly within their image, expected at least 3 to "
            "learn shapes from; use conditions: augmented"
        )
    pca = PCA(min(components, len(fields) - 1), svd_solver="randomized", random_state=0)
    pca.fit(np.stack(fields))
    deviations = np.sqrt(pca.explained_variance_)
    return ShapeModel(pca.mean_, pca.components_, deviations)


def is_whole(mask: np.ndarray) -> bool:
    """Whether there is a lesion and it ends before the image's edge."""
    edges = mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any()
    return bool(mask.any() and not edges)
