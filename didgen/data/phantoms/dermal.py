"""Dermal lesions: dermatofibroma and vascular lesions."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas
from .fields import blob, smoothstep


def paint_dermatofibroma(c: Canvas) -> None:
    """DF: pink-brown, delicate network at the rim, a white scar-like patch in the middle."""
    rng = c.rng
    edge = c.edge(rng.uniform(0.06, 0.11))
    mottle = c.noise(0.07)
    c.paint("pink", edge * rng.uniform(0.45, 0.7))
    c.paint("light brown", edge * np.clip(rng.uniform(0.6, 0.85) + 0.1 * mottle, 0, 1))
    mesh = c.cells(rng.uniform(0.044, 0.056), 0.85)
    ring = smoothstep(c.depth / c.radius, 0.75, 0.3) * np.clip(0.8 + 0.25 * mottle, 0.2, 1)
    c.paint("dark brown", edge * ring * smoothstep(mesh.wall, 0.26, 0.03) * 0.55)
    size = rng.uniform(0.42, 0.56) * c.radius
    lobes = int(rng.integers(2, 5))
    spot = c.inside(0.1)
    patch = blob(rng, c.u, c.v, spot, size, edge=1.5 * size, lobes=lobes, lobe_depth=0.1)
    patch = smoothstep(patch + 0.1 * mottle + 0.05 * c.grain, 0.1, 0.95)
    c.paint("white", edge * patch * np.clip(0.88 + 0.06 * mottle, 0, 1))
    strand = smoothstep(np.abs(c.noise(0.05)), 0.5, 0.0)
    c.paint("pink", edge * patch * strand * 0.4)


def paint_vascular(c: Canvas) -> None:
    """VASC: red to purple lacunae, sharply bounded, parted by pale walls."""
    rng = c.rng
    edge = c.edge(rng.uniform(0.012, 0.03))
    hue = rng.choice(["red", "mixed", "purple"], p=[0.4, 0.35, 0.25])
    low, high = {"red": (0.0, 0.12), "mixed": (0.0, 0.55), "purple": (0.3, 1.0)}[hue]
    cut = rng.uniform(low, high)
    mottle = c.noise(0.05)
    c.paint("pink", edge * rng.uniform(0.6, 0.85))
    c.paint("red", edge * np.clip(rng.uniform(0.3, 0.65) + 0.08 * mottle, 0, 1))
    lakes = c.cells(float(np.clip(0.42 * c.radius, 0.055, 0.13)), 0.85)
    # The product of both distances rounds the corners that a wall alone would leave.
    lake = smoothstep(lakes.wall + 0.03 * mottle, 0.0, 0.2) * smoothstep(lakes.nearest, 0.75, 0.45)
    c.paint("red", edge * lake * np.clip(0.85 + 0.06 * mottle, 0, 1))
    c.paint("purple", edge * lake * smoothstep(lakes.tint, cut + 0.1, cut - 0.1) * 0.9)
    deep = smoothstep(lakes.nearest, 0.1, 0.5) * lake
    c.paint("purple", edge * deep * rng.uniform(0.1, 0.35))
    if rng.random() < 0.35:
        c.paint("black", edge * lake * (lakes.tint > 0.85) * 0.8)
    if rng.random() < 0.35:
        film = smoothstep(c.noise(0.06) + 0.4 * mottle, 0.5, 1.8)
        c.paint("white", edge * film * 0.45)
