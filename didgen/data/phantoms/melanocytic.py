"""Melanocytic lesions: nevus and melanoma."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas
from .fields import blob, smoothstep


def paint_nevus(c: Canvas) -> None:
    """NV: even brown, darker in the middle, with a pigment network or globules."""
    rng = c.rng
    pattern = rng.choice(["network", "globules", "both"], p=[0.5, 0.3, 0.2])
    edge = c.edge(rng.uniform(0.035, 0.075))
    mottle = c.noise(0.09)
    middle = smoothstep(c.depth / c.radius + 0.07 * mottle, 0.0, rng.uniform(0.55, 0.95))
    c.paint("light brown", edge * np.clip(0.84 + 0.06 * mottle, 0, 1))
    c.paint("dark brown", edge * middle * np.clip(rng.uniform(0.4, 0.85) + 0.1 * mottle, 0, 1))
    if pattern != "globules":
        mesh = c.cells(rng.uniform(0.046, 0.06), 0.85)
        line = smoothstep(mesh.wall, 0.24, 0.03)
        fade = smoothstep(c.depth, -0.015, 0.03) * np.clip(0.75 + 0.25 * mottle, 0.25, 1)
        c.paint("dark brown", line * fade * rng.uniform(0.65, 0.85))
    if pattern != "network":
        dots = c.cells(rng.uniform(0.05, 0.066), 0.9)
        ball = smoothstep(dots.nearest, 0.3 + 0.2 * dots.tint, 0.1 + 0.2 * dots.tint)
        c.paint("dark brown", ball * smoothstep(c.depth, 0.0, 0.02) * rng.uniform(0.75, 0.95))


def paint_melanoma(c: Canvas) -> None:
    """MEL: several colors in an uneven layout, black blotch, blue-white veil, streaks."""
    rng = c.rng
    edge = c.edge(rng.uniform(0.018, 0.045))
    broad, fine = c.noise(max(0.5 * c.radius, 0.09)), c.noise(0.04)
    c.paint(str(rng.choice(["light brown", "tan"], p=[0.8, 0.2])), edge * (0.86 + 0.05 * fine))
    c.paint("dark brown", edge * smoothstep(broad + 0.5 * fine + 0.2 * c.grain, -1.2, 0.8) * 0.92)
    side = rng.uniform(0, 2 * np.pi)
    _network_or_dots(c, edge)
    if rng.random() < 0.4:
        red = blob(rng, c.u, c.v, _at(c, side + 2.4, 0.5), 0.4 * c.radius, edge=0.6 * c.radius)
        c.paint("red", edge * red * np.clip(0.6 + 0.15 * fine, 0, 1))
    _veil(c, edge, side + rng.uniform(1.8, 3.2), fine)
    spot, size = _at(c, side, rng.uniform(0.3, 0.55)), rng.uniform(0.35, 0.6) * c.radius
    blotch = blob(rng, c.u, c.v, spot, size, edge=0.5 * c.radius, lobes=3, lobe_depth=0.2)
    c.paint("black", edge * smoothstep(blotch + 0.16 * fine + 0.1 * broad, 0.15, 0.9) * 0.95)
    _streaks(c, side + rng.normal(0, 0.5))
    if rng.random() < 0.3:
        spot = _at(c, side + rng.uniform(2.8, 4.0), 0.62)
        pale = blob(rng, c.u, c.v, spot, 0.26 * c.radius, edge=0.4 * c.radius)
        c.paint("white", edge * pale * np.clip(0.65 + 0.2 * fine, 0, 1))


def _network_or_dots(c: Canvas, edge: np.ndarray) -> None:
    """Atypical network: uneven meshes and dots of uneven size, on a part of the lesion."""
    mesh = c.cells(c.rng.uniform(0.05, 0.07), 0.95)
    part = smoothstep(c.noise(max(0.6 * c.radius, 0.1)), -0.2, 0.7)
    c.paint("dark brown", edge * part * smoothstep(mesh.wall, 0.24, 0.03) * 0.75)
    ball = smoothstep(mesh.nearest, 0.2 + 0.25 * mesh.tint, 0.25 * mesh.tint) * (mesh.tint > 0.45)
    c.paint("black", edge * (1 - part) * ball * 0.6)


def _veil(c: Canvas, edge: np.ndarray, side: float, fine: np.ndarray) -> None:
    """Blue-white veil: a hazy blue-gray area under a whitish film."""
    if c.rng.random() < 0.12:
        return
    spot, radius = _at(c, side, c.rng.uniform(0.15, 0.4)), c.rng.uniform(0.4, 0.62) * c.radius
    area = blob(c.rng, c.u, c.v, spot, radius, edge=0.6 * c.radius, lobes=3, lobe_depth=0.2)
    ragged = smoothstep(area + 0.14 * fine + 0.05 * c.grain, 0.0, 1.0)
    c.paint("blue-gray", edge * ragged * np.clip(0.86 + 0.08 * fine, 0, 1))
    c.paint(
        "white",
        edge * area * smoothstep(c.noise(0.06) + 0.5 * fine + 0.4 * c.grain, 0.0, 2.2) * 0.5,
    )


def _streaks(c: Canvas, side: float) -> None:
    """Radial streaks and pseudopods on one stretch of the border."""
    rng, n = c.rng, int(c.rng.integers(4, 9))
    angles = side + np.linspace(-0.75, 0.75, n) + rng.normal(0, 0.1, n)
    # Streaks start from the true border in their direction, wherever the outline has it.
    border = c.border(angles)
    inner, outer = border * rng.uniform(0.65, 0.85, n), border + rng.uniform(0.0, 0.03, n)
    steps = max(int(c.size * c.radius * 1.6), 8)
    t = np.linspace(0, 1, steps)[None]
    r = inner[:, None] + (outer - inner)[:, None] * t
    lean = angles[:, None] + rng.normal(0, 0.12, (n, 1)) * t
    width = rng.uniform(0.014, 0.024, (n, 1)) * (0.6 + 0.5 * t)
    cover = c.stroke(r * np.cos(lean), r * np.sin(lean), width)
    strength = np.clip(0.75 + 0.2 * c.grain, 0, 1)
    c.paint("black", cover * strength * smoothstep(c.depth, -0.014, 0.006))


def _at(c: Canvas, angle: float, reach: float) -> tuple[float, float]:
    """The point in a direction, reach mean radii from the middle."""
    return float(reach * c.radius * np.cos(angle)), float(reach * c.radius * np.sin(angle))
