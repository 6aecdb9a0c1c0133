"""What phantoms are painted with: colors, noise, strokes, and the canvas in the lesion's frame.

Fields and strokes are defined on coordinates in field units (the image side is 1), so that any size
agrees; h, w are a window of the image.
"""

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from scipy import ndimage

from didgen.data.phantoms.outline import Outline

# name -> (L, a, b) on fair skin, and how strongly the color darkens with the skin (exponent of
# skin lightness over FAIR): pigment lies within the skin and follows it, keratin lies on top.
COLORS: dict[str, tuple[tuple[float, float, float], float]] = {
    "light brown": ((51.0, 20.0, 25.0), 0.8),
    "dark brown": ((29.0, 17.0, 17.0), 0.8),
    "black": ((12.0, 3.0, 3.0), 0.5),
    "red": ((45.0, 44.0, 21.0), 0.5),
    "pink": ((60.0, 34.0, 8.0), 0.7),
    "purple": ((33.0, 30.0, -12.0), 0.4),
    "blue-gray": ((43.0, 2.0, -9.5), 0.5),
    "white": ((84.0, 7.0, 5.0), 0.4),
    "tan": ((60.0, 13.0, 30.0), 0.85),
    "yellow": ((75.0, 9.0, 33.0), 0.5),
}
FAIR = 70.0

_WHITE = np.array([0.95047, 1.0, 1.08883], dtype=np.float32)
_TO_RGB = np.array(
    [
        [3.2404542, -1.5371385, -0.4985314],
        [-0.9692660, 1.8760108, 0.0415560],
        [0.0556434, -0.2040259, 1.0572252],
    ],
    dtype=np.float32,
)
_LINEAR = np.linspace(0.0, 1.0, 8192, dtype=np.float32)
_GAMMA = np.where(_LINEAR <= 0.0031308, 12.92 * _LINEAR, 1.055 * _LINEAR ** (1 / 2.4) - 0.055)
_GAMMA = _GAMMA.astype(np.float32)


def lesion_color(name: str, skin_lightness: float) -> np.ndarray:
    """CIELAB value (3,) of a named lesion color on skin of the given L (0..100)."""
    lab, follows = COLORS[name]
    value = np.array(lab, dtype=np.float32)
    value[0] *= (min(skin_lightness, 80.0) / FAIR) ** follows
    return value


def lab_to_srgb(lab: np.ndarray) -> np.ndarray:
    """CIELAB (..., 3) to gamma-coded sRGB float32 (..., 3) in 0..1, clipped to the gamut."""
    fy = (lab[..., 0] + 16.0) / 116.0
    f = np.stack([fy + lab[..., 1] / 500.0, fy, fy - lab[..., 2] / 200.0], axis=-1)
    f = f.astype(np.float32, copy=False)
    xyz = np.where(f > 6 / 29, f * f * f, (f - 4 / 29) * np.float32(3 * (6 / 29) ** 2)) * _WHITE
    linear = np.clip(xyz @ _TO_RGB.T, 0.0, 1.0)
    return _GAMMA[(linear * (len(_LINEAR) - 1) + 0.5).astype(np.int32)]


def typology_angle(lightness: float, b: float) -> float:
    """Individual typology angle in degrees: arctan((L - 50) / b), Chardon et al. 1991."""
    return float(np.degrees(np.arctan2(lightness - 50.0, b)))


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


@dataclass(frozen=True)
class Pose:
    """How a photograph shows the lesion: center (x, y) and zoom in field units, turn (radians)."""

    x: float
    y: float
    zoom: float
    turn: float

    def to_lesion(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Image points to the lesion's frame."""
        c, s = np.float32(np.cos(self.turn)), np.float32(np.sin(self.turn))
        dx, dy = (x - np.float32(self.x)), (y - np.float32(self.y))
        zoom = np.float32(self.zoom)
        return (c * dx + s * dy) / zoom, (c * dy - s * dx) / zoom

    def to_image(self, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points of the lesion's frame to the image."""
        c, s = np.cos(self.turn), np.sin(self.turn)
        return self.x + self.zoom * (c * u - s * v), self.y + self.zoom * (s * u + c * v)


@dataclass
class Canvas:
    """A window of the photograph while the lesion is painted.

    u, v: float32 (h, w), the lesion's frame in field units at zoom 1, origin in its middle,
        gently warped so that no structure is geometric.
    grain: float32 (h, w), fine noise that breaks up every layer.
    depth: float32 (h, w), distance to the outline in field units, positive inside.
    lab: float32 (h, w, 3), what is painted so far; begins as the skin.
    outline: the border, in the lesion's frame.
    """

    u: np.ndarray
    v: np.ndarray
    depth: np.ndarray
    grain: np.ndarray
    lab: np.ndarray
    outline: Outline
    skin_lightness: float
    rng: np.random.Generator
    pose: Pose
    size: int
    window: tuple[int, int, int, int]
    layers: list[tuple[str, np.ndarray]] = field(default_factory=list)

    @property
    def radius(self) -> float:
        """Radius in field units of the circle of the lesion's area."""
        return float(np.sqrt(self.outline.area / np.pi))

    def border(self, angles: np.ndarray) -> np.ndarray:
        """Radius (n,) of the outline in the given directions (radians)."""
        return self.outline.at(angles)

    def edge(self, width: float) -> np.ndarray:
        """Alpha (h, w) of the lesion with a border of the given width; one half on the outline."""
        return smoothstep(self.depth, -0.5 * width, 0.5 * width)

    def noise(self, period: float) -> np.ndarray:
        """Noise (h, w) that sticks to the lesion: mean 0, standard deviation 1."""
        return noise(self.rng, self.u, self.v, period)

    def cells(self, period: float, jitter: float = 0.7) -> Cells:
        """Cells (h, w) that stick to the lesion."""
        return cells(self.rng, self.u, self.v, period, jitter)

    def paint(self, color: str, alpha: np.ndarray, spread: float = 1.0) -> None:
        """Lay a named color over what is there; spread scales the lesion's own tint of it."""
        alpha = np.clip(alpha * (1.0 + 0.11 * self.grain), 0.0, 1.0)
        value = lesion_color(color, self.skin_lightness)
        value = value + spread * self.rng.normal(0, (2.5, 2.0, 2.5)).astype(np.float32)
        alpha = alpha.astype(np.float32, copy=False)
        self.lab += alpha[..., None] * (value - self.lab)
        self.layers.append((color, alpha))

    def stroke(self, u: np.ndarray, v: np.ndarray, width: np.ndarray) -> np.ndarray:
        """Coverage (h, w) of curves given as dense points in the lesion's frame."""
        x, y = self.pose.to_image(u, v)
        return stroke_coverage(x, y, width * self.pose.zoom, self.size, self.window)

    def inside(self, reach: float) -> tuple[float, float]:
        """A random point of the lesion's frame within reach (0..1) of the mean radius."""
        angle, r = self.rng.uniform(0, 2 * np.pi), self.radius * reach
        r *= np.sqrt(self.rng.uniform())
        return float(r * np.cos(angle)), float(r * np.sin(angle))

    def visible_colors(self, mask: np.ndarray, least: float) -> tuple[str, ...]:
        """Names of the colors that show on at least this share of the mask, the largest first."""
        if not mask.any():
            return ()
        share: dict[str, float] = {}
        through = np.ones(int(mask.sum()), dtype=np.float32)
        for color, alpha in reversed(self.layers):
            shown = alpha[mask] * through
            share[color] = share.get(color, 0.0) + float(shown.mean())
            through = through * (1.0 - alpha[mask])
        ranked = sorted(share, key=share.__getitem__, reverse=True)
        return tuple(c for c in ranked if share[c] >= least) or tuple(ranked[:1])
