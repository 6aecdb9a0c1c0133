"""Smooth random fields and cell patterns, defined on coordinates so that any size agrees.

Coordinates are in field units (the image side is 1); h, w are a window of the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

# White noise as coefficients of a cubic B-spline has this standard deviation in two dimensions:
# the integral of the squared spline, 151/315, once for each axis, under a root.
_SPLINE_STD = 151 / 315

REACH = 0.8
"""Patterns are drawn this far from the origin, in field units; no lesion reaches further."""


def smoothstep(x: np.ndarray, low: float | np.ndarray, high: float | np.ndarray) -> np.ndarray:
    """Cubic ramp from 0 at low to 1 at high (low may exceed high for a falling ramp)."""
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def noise(rng: np.random.Generator, u: np.ndarray, v: np.ndarray, period: float) -> np.ndarray:
    """Smooth noise of mean 0 and standard deviation 1 with the given period at points (u, v).

    The spline is drawn on a raster four times finer than its nodes over REACH in both
    directions and read linearly from there, far cheaper than a spline at each turned pixel.
    """
    nodes = int(np.ceil(2 * REACH / period)) + 4
    fine = 4 * (nodes - 3)
    basis = _spline_basis(fine, nodes, 0.25)
    raster = basis @ _coefficients(rng, nodes) @ basis.T
    at = (np.stack([v, u]) + np.float32(REACH)) * np.float32(4 / period)
    return ndimage.map_coordinates(raster, at, output=np.float32, order=1, mode="nearest")


def image_noise(rng: np.random.Generator, size: int, period: float) -> np.ndarray:
    """Smooth noise (size, size) along the image axes: two matrix products."""
    nodes = int(np.ceil(1.0 / period)) + 4
    basis = _spline_basis(size, nodes, 1.0 / (size * period))
    return basis @ _coefficients(rng, nodes) @ basis.T


def _coefficients(rng: np.random.Generator, nodes: int) -> np.ndarray:
    """Random spline coefficients (nodes, nodes) for a surface of standard deviation 1."""
    return rng.standard_normal((nodes, nodes), dtype=np.float32) / np.float32(_SPLINE_STD)


@lru_cache(maxsize=256)
def _spline_basis(points: int, nodes: int, step: float) -> np.ndarray:
    """Cubic B-spline weights (points, nodes) at pixel centers `step` node distances apart."""
    at = (np.arange(points, dtype=np.float32) + 0.5) * step + 1.0
    d = np.abs(at[:, None] - np.arange(nodes, dtype=np.float32)[None])
    near = 2 / 3 - d * d + 0.5 * d * d * d
    far = np.clip(2.0 - d, 0.0, None) ** 3 / 6
    return np.where(d < 1.0, near, far).astype(np.float32)


@dataclass(frozen=True)
class Cells:
    """Distances to the nearest and second nearest cell center, in periods, and a cell number.

    nearest, second: float32 (h, w); tint: float32 (h, w), one value in 0..1 for each cell.
    """

    nearest: np.ndarray
    second: np.ndarray
    tint: np.ndarray

    @property
    def wall(self) -> np.ndarray:
        """Distance to the wall between two cells, in periods (0 on the wall)."""
        return 0.5 * (self.second - self.nearest)


def cells(
    rng: np.random.Generator, u: np.ndarray, v: np.ndarray, period: float, jitter: float = 0.7
) -> Cells:
    """Worley cells of the given period: a staggered lattice, each center moved by jitter."""
    n = int(np.ceil(2 * REACH / period)) + 4
    moved = (rng.random((2, n, n), dtype=np.float32) - 0.5) * np.float32(jitter)
    number = rng.random(n * n, dtype=np.float32)
    index = np.arange(n, dtype=np.float32)
    stagger = 0.25 + 0.5 * (index % 2)
    center_x = (index[None, :] + stagger[:, None] + moved[0]).astype(np.float32).ravel()
    center_y = (index[:, None] + np.float32(0.5) + moved[1]).ravel()
    x, y = ((w + np.float32(REACH)) / np.float32(period) + 2 for w in (u, v))
    column, row = (np.clip(w.astype(np.int32), 1, n - 2) for w in (x, y))
    middle = row * n + column
    nearest = np.full(u.shape, 81.0, np.float32)
    second = nearest
    owner = middle
    for step in (0, -1, 1, -n, n, -n - 1, 1 - n, n - 1, n + 1):
        near = middle + step
        square = (center_x[near] - x) ** 2 + (center_y[near] - y) ** 2
        second = np.minimum(second, np.maximum(nearest, square))
        owner = np.where(square < nearest, near, owner)
        nearest = np.minimum(nearest, square)
    nearest, second, tint = np.sqrt(nearest), np.sqrt(second), number[owner]
    return Cells(nearest, second, tint)


def blob(
    rng: np.random.Generator,
    u: np.ndarray,
    v: np.ndarray,
    center: tuple[float, float],
    radius: float,
    *,
    edge: float,
    lobes: int = 0,
    lobe_depth: float = 0.0,
) -> np.ndarray:
    """Alpha 0..1 (h, w) of a soft spot, oval and randomly turned, with lobes if asked."""
    turn, squeeze = rng.uniform(0, np.pi), rng.uniform(0.75, 1.0)
    phase = rng.uniform(0, 2 * np.pi)
    du, dv = u - np.float32(center[0]), v - np.float32(center[1])
    a = du * np.float32(np.cos(turn)) + dv * np.float32(np.sin(turn))
    b = (dv * np.float32(np.cos(turn)) - du * np.float32(np.sin(turn))) / np.float32(squeeze)
    r = np.sqrt(a * a + b * b)
    limit: np.float32 | np.ndarray = np.float32(radius)
    if lobes:
        limit = limit * (1 + lobe_depth * np.cos(lobes * np.arctan2(b, a) + np.float32(phase)))
    return smoothstep(limit - r, -0.5 * edge, 0.5 * edge)
