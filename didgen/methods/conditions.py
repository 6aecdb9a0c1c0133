"""Condition masks: a training mask as it is, warped, or a new shape in its place.

A condition depends on its own random generator alone, so on no shard and no order. Masks: bool
(H, W). What comes out always holds lesion and skin.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from didgen.methods.shapes import (
    Place,
    ShapeModel,
    draw,
    place_of,
    read_distance,
    signed_distance,
)

# Shares of the image that a changed mask may cover; a drawing outside is drawn again.
SMALLEST, LARGEST = 0.01, 0.9
TRIES = 10
# Half of the width, in square roots of the area, under which a bridge is no part of a shape.
TAIL = 0.12


@dataclass(frozen=True)
class Warp:
    """How far a mask is warped at most.

    turn: radians. zoom: factor of the size, and its inverse. stretch: factor of one axis against
    the other. shift: share of the image's side. bend: root mean square of the elastic displacement
    and bend_scale its smoothness, both as shares of the square root of the lesion's area.
    """

    turn: float = np.pi
    zoom: float = 1.25
    stretch: float = 1.2
    shift: float = 0.08
    bend: float = 0.06
    bend_scale: float = 0.3


@dataclass(frozen=True)
class ShapeSampling:
    """How a shape is drawn: between two lesions' shapes, then off by noise.

    spread: standard deviation of the noise, in the model's own, cut off at twice that. zoom and
    shift: of the first lesion's size and place, as in `Warp`.
    """

    spread: float = 0.4
    zoom: float = 1.2
    shift: float = 0.05


def warp_mask(
    mask: np.ndarray, rng: np.random.Generator, settings: Warp | None = None
) -> np.ndarray:
    """The mask turned, mirrored, scaled, stretched, shifted and bent about its centroid.

    Raises: `ShapeError` for an empty or full mask.
    """
    return warp_map(mask, rng, settings or Warp())[1]


def warp_map(
    mask: np.ndarray, rng: np.random.Generator, settings: Warp
) -> tuple[np.ndarray, np.ndarray]:
    """From where each pixel of a warped mask is taken, (2, H, W) in px, and that mask.

    Its signed distance is warped, not its pixels, so that borders stay smooth. A lesion that the
    image's edge cuts goes on beyond it, as far as it is deep there. Nothing is warped when no
    drawing is usable. Raises: `ShapeError` for an empty or full mask.
    """
    distance = signed_distance(mask)
    for _ in range(TRIES):
        grid = _sources(mask, rng, settings)
        cleaned = _cleaned(read_distance(distance, grid) > 0)
        if cleaned is not None:
            return grid, cleaned
    return np.mgrid[: mask.shape[0], : mask.shape[1]].astype(float), mask.copy()


def _sources(mask: np.ndarray, rng: np.random.Generator, settings: Warp) -> np.ndarray:
    """From where in the mask each pixel is taken, (2, H, W) in px."""
    height, width = mask.shape
    place = place_of(mask)
    center = np.array([place.row * height, place.column * width]) - 0.5
    turn, axis = rng.uniform(-settings.turn, settings.turn), rng.uniform(0, np.pi)
    zoom, stretch = (f ** rng.uniform(-1, 1) for f in (settings.zoom, settings.stretch))
    mirror = np.diag([1.0, rng.choice([-1.0, 1.0])])
    stretching = _rotation(axis) @ np.diag([stretch, 1 / stretch]) @ _rotation(-axis)
    inverse = np.linalg.inv(zoom * _rotation(turn) @ stretching @ mirror)
    shift = rng.uniform(-settings.shift, settings.shift, 2) * (height, width)
    grid = np.mgrid[:height, :width].reshape(2, -1)
    points = inverse @ (grid - (center + shift)[:, None]) + center[:, None]
    size = place.scale * float(np.sqrt(height * width))
    bend = _bend(rng, mask.shape, settings.bend_scale * size) * settings.bend * size
    return points.reshape(2, height, width) + bend


def _rotation(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _bend(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> np.ndarray:
    """A smooth random displacement (2, H, W) of root mean square 1."""
    noise = rng.standard_normal((2, *shape))
    smooth = np.stack([ndimage.gaussian_filter(part, sigma, mode="reflect") for part in noise])
    return smooth / max(float(np.sqrt(np.square(smooth).mean())), 1e-12)


def sample_mask(
    model: ShapeModel,
    mask: np.ndarray,
    other: np.ndarray,
    rng: np.random.Generator,
    settings: ShapeSampling | None = None,
) -> np.ndarray:
    """A new shape between those of two training masks, near the first one's place and size.

    Falls back to the first mask when no drawing is usable. Raises: `ShapeError` for an empty or
    full mask.
    """
    settings = settings or ShapeSampling()
    ends = [model.coordinates(each) for each in (mask, other)]
    place = place_of(mask)
    for _ in range(TRIES):
        part = rng.uniform(0.2, 0.8)
        noise = rng.standard_normal(len(model.deviations)).clip(-2, 2)
        point = part * ends[0] + (1 - part) * ends[1] + settings.spread * noise * model.deviations
        row, column = rng.uniform(-settings.shift, settings.shift, 2)
        zoom = settings.zoom ** rng.uniform(-1, 1)
        near = Place(place.row + row, place.column + column, place.scale * zoom)
        drawn = draw(model.field(point), near, rng.uniform(-np.pi, np.pi), mask.shape)
        # Far from the lesion the components add up to small islands and bridges to them.
        usable = _cleaned(_without_tails(drawn, TAIL * near.scale * float(np.sqrt(mask.size))))
        if usable is not None:
            return usable
    return mask.copy()


def _without_tails(mask: np.ndarray, width: float) -> np.ndarray:
    """The largest part of a mask (an opening): what hangs on by a neck under 2 `width` px goes."""
    core = ndimage.distance_transform_edt(mask) > width
    pieces, count = ndimage.label(core)
    if count == 0:
        return mask
    largest = pieces == 1 + int(np.bincount(pieces.ravel())[1:].argmax())
    return mask & (ndimage.distance_transform_edt(~largest) <= width + 1)


def _cleaned(mask: np.ndarray) -> np.ndarray | None:
    """The largest piece without holes, or None if it covers too little or too much."""
    pieces, count = ndimage.label(mask)
    if count == 0:
        return None
    sizes = np.bincount(pieces.ravel())[1:]
    largest = ndimage.binary_fill_holes(pieces == 1 + int(sizes.argmax()))
    return largest if SMALLEST <= float(largest.mean()) <= LARGEST else None
