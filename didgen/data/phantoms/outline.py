"""The lesion's outline: a radius for each direction, and what it measures."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import ConvexHull

_DIRECTIONS = 720
_ANGLES = np.linspace(-np.pi, np.pi, _DIRECTIONS, endpoint=False)
_UNIT = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)

# Measured on the outline: below this solidity it is irregular, else above this ratio of the
# main axes it is oval; above this share of mirrored mismatch it is asymmetric.
IRREGULAR_BELOW = 0.945
OVAL_ABOVE = 1.22
ASYMMETRIC_ABOVE = 0.16


@dataclass(frozen=True)
class Outline:
    """Radius (directions,) in field units over the angles -pi..pi, seen from the origin."""

    radius: np.ndarray

    def signed_distance(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Approximate distance to the outline (h, w), positive inside, in field units."""
        slope = np.gradient(self.radius, 2 * np.pi / _DIRECTIONS) / self.radius
        table = np.stack([self.radius, 1.0 / np.sqrt(1.0 + slope**2)])
        table = np.concatenate([table, table[:, :1]], axis=1).astype(np.float32)
        at = (np.arctan2(v, u) + np.float32(np.pi)) * np.float32(_DIRECTIONS / (2 * np.pi))
        low = np.clip(at.astype(np.int32), 0, _DIRECTIONS - 1)
        part = at - low
        radius, steep = table[:, low] * (1 - part) + table[:, low + 1] * part
        return (radius - np.hypot(u, v)) * steep

    def at(self, angles: np.ndarray) -> np.ndarray:
        """Radius (n,) in the given directions (radians)."""
        return np.interp(angles, _ANGLES, self.radius, period=2 * np.pi)

    @property
    def area(self) -> float:
        """Area in squared field units."""
        return float(0.5 * np.mean(self.radius**2) * 2 * np.pi)

    def polygon(self) -> np.ndarray:
        """Points (directions, 2) of the outline."""
        return _UNIT * self.radius[:, None]

    def shape(self) -> str:
        """ "irregular" by solidity, else "oval" by the ratio of the main axes, else "round"."""
        points = self.polygon()
        if self.area / ConvexHull(points[::4]).volume < IRREGULAR_BELOW:
            return "irregular"
        axes, _ = _main_axes(self)
        return "oval" if np.sqrt(axes[1] / axes[0]) > OVAL_ABOVE else "round"

    def asymmetry(self) -> float:
        """Mean mismatch over both main axes when mirrored, as a share of the area (0 = none)."""
        _, turn = _main_axes(self)
        points = self.polygon() - _centroid(self)
        angle = np.arctan2(points[:, 1], points[:, 0])
        order = np.argsort(angle)
        square = (points**2).sum(1)
        t = _ANGLES

        def at(a: np.ndarray) -> np.ndarray:
            wrapped = (a + np.pi) % (2 * np.pi) - np.pi
            return np.interp(wrapped, angle[order], square[order], period=2 * np.pi)

        here = at(turn + t)
        mismatch = [np.abs(here - at(turn + mirror - t)).mean() for mirror in (0.0, np.pi)]
        return float(np.mean(mismatch) / here.mean())


def draw_outline(
    rng: np.random.Generator, area: float, elongation: float, rough: float, lobed: float
) -> Outline:
    """A random outline of the given area (squared field units).

    elongation: ratio of the main axes (1 is round); rough: strength of fine notches; lobed:
    strength of the broad lobes that make a shape irregular (0..1).
    """
    base = 1.0 / np.sqrt(np.cos(_ANGLES) ** 2 / elongation + np.sin(_ANGLES) ** 2 * elongation)
    wave = np.zeros(_DIRECTIONS)
    for k in range(2, 15):
        weight = lobed / k**0.9 if k <= 6 else 0.0
        weight += rough / k**0.5
        wave += weight * rng.normal() * np.cos(k * _ANGLES + rng.uniform(0, 2 * np.pi))
    radius = base * np.clip(1.0 + wave, 0.45, 1.8)
    turn = rng.integers(_DIRECTIONS)
    radius = np.roll(radius, turn)
    shape = Outline(radius)
    return Outline(radius * np.sqrt(area / shape.area))


def _centroid(outline: Outline) -> np.ndarray:
    """Centroid (2,) of the area: the mean of two thirds of each sector's points by area."""
    weight = outline.radius**2
    return (2 / 3) * (outline.polygon() * weight[:, None]).sum(0) / weight.sum()


def _main_axes(outline: Outline) -> tuple[np.ndarray, float]:
    """Second moments (2,) in rising order and the angle of the long axis."""
    points, weight = outline.polygon(), outline.radius**2
    second = 0.5 * (points * weight[:, None]).T @ points / weight.sum()
    center = _centroid(outline)
    values, vectors = np.linalg.eigh(second - np.outer(center, center))
    return values, float(np.arctan2(vectors[1, 1], vectors[0, 1]))
