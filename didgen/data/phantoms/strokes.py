"""Anti-aliased thin curves: hair, vessels, pen and ruler marks."""

from __future__ import annotations

import numpy as np


def stroke_coverage(
    x: np.ndarray,
    y: np.ndarray,
    width: np.ndarray,
    size: int,
    window: tuple[int, int, int, int] | None = None,
) -> np.ndarray:
    """Pixel coverage 0..1 of curves given as dense points.

    Shapes: x, y, width (N,) in field units (image side 1); result (h, w) of the window
    (top, bottom, left, right in pixels), the whole image without one. Points should lie at most
    half a pixel apart. A stroke thinner than a pixel is drawn one pixel wide and fainter.
    """
    top, bottom, left, right = window or (0, size, 0, size)
    h, w = bottom - top, right - left
    out = np.zeros(h * w, dtype=np.float32)
    px = (np.asarray(x).ravel() * size - 0.5 - left).astype(np.float32)
    py = (np.asarray(y).ravel() * size - 0.5 - top).astype(np.float32)
    radius = (np.asarray(width).ravel() * (0.5 * size)).astype(np.float32)
    if px.size == 0:
        return out.reshape(h, w)
    reach = int(np.ceil(float(radius.max()) + 0.5))
    keep = (px > -reach - 1) & (px < w + reach) & (py > -reach - 1) & (py < h + reach)
    px, py, radius = px[keep], py[keep], radius[keep]
    ix, iy = np.rint(px).astype(np.int64), np.rint(py).astype(np.int64)
    strength = np.minimum(2.0 * radius, 1.0)
    core = np.maximum(radius, 0.5) + 0.5
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            cx, cy = ix + dx, iy + dy
            d = np.hypot(cx - px, cy - py)
            cover = np.clip(core - d, 0.0, 1.0) * strength
            hit = (cover > 0) & (cx >= 0) & (cx < w) & (cy >= 0) & (cy < h)
            np.maximum.at(out, cy[hit] * w + cx[hit], cover[hit].astype(np.float32))
    return out.reshape(h, w)


def curves(
    start: np.ndarray, angle: np.ndarray, length: np.ndarray, bend: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Points x, y (n, steps) of n arcs that turn by `bend` radians along their length.

    Shapes: start (n, 2), angle, length, bend (n,). Units: field units and radians.
    """
    t = np.linspace(0.0, 1.0, steps, dtype=np.float32)[None]
    heading = angle[:, None] + bend[:, None] * t
    step = length[:, None] / max(steps - 1, 1)
    x = start[:, :1] + np.cumsum(np.cos(heading), axis=1) * step
    y = start[:, 1:] + np.cumsum(np.sin(heading), axis=1) * step
    return x, y
