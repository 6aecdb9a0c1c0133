"""The canvas a lesion is painted on, in the lesion's own frame."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .fields import Cells, cells, noise, smoothstep
from .outline import Outline
from .palette import lesion_color
from .strokes import stroke_coverage


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
