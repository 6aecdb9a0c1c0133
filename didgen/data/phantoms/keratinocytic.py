"""Keratinocytic lesions: basal cell carcinoma, actinic keratosis, benign keratosis."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas
from .fields import blob, smoothstep


def paint_basal_cell_carcinoma(c: Canvas) -> None:
    """BCC: pearly pink, leaf-like areas, blue-gray nests, ulcer, arborizing vessels."""
    rng = c.rng
    edge = c.edge(rng.uniform(0.04, 0.08))
    fine = c.noise(0.045)
    c.paint("pink", edge * np.clip(rng.uniform(0.62, 0.85) + 0.1 * fine, 0, 1))
    shine = smoothstep(c.noise(max(0.4 * c.radius, 0.08)) + 0.3 * fine, 0.1, 1.6)
    c.paint("white", edge * shine * 0.5)
    kind = rng.choice(["leaves", "nests", "ulcer", "leaves and ulcer"], p=[0.35, 0.2, 0.2, 0.25])
    if "leaves" in kind:
        _leaves(c, edge, fine)
    if kind == "nests" or rng.random() < 0.3:
        for _ in range(int(rng.integers(2, 6))):
            size = max(rng.uniform(0.12, 0.24) * c.radius, 0.024)
            nest = blob(rng, c.u, c.v, c.inside(0.75), size, edge=1.2 * size)
            c.paint("blue-gray", edge * smoothstep(nest + 0.12 * fine, 0.15, 0.8) * 0.82)
    if "ulcer" in kind:
        _ulcer(c, edge, fine)
    _vessels(c)


def _leaves(c: Canvas, edge: np.ndarray, fine: np.ndarray) -> None:
    """Brown to gray-blue lobed areas at the rim, like maple leaves."""
    n = int(c.rng.integers(3, 6))
    start = c.rng.uniform(0, 2 * np.pi)
    for k in range(n):
        angle = start + 2 * np.pi * k / n + c.rng.normal(0, 0.3)
        size = max(c.rng.uniform(0.18, 0.32) * c.radius, 0.03)
        reach = c.rng.uniform(0.55, 0.75) * c.radius
        spot = (reach * np.cos(angle), reach * np.sin(angle))
        lobes = int(c.rng.integers(3, 5))
        leaf = blob(c.rng, c.u, c.v, spot, size, edge=0.9 * size, lobes=lobes, lobe_depth=0.2)
        color = str(c.rng.choice(["dark brown", "blue-gray"], p=[0.65, 0.35]))
        c.paint(color, edge * smoothstep(leaf + 0.22 * fine + 0.06 * c.grain, 0.15, 0.85) * 0.82)


def _ulcer(c: Canvas, edge: np.ndarray, fine: np.ndarray) -> None:
    """An eroded red pit with a yellow crust around it."""
    size = max(c.rng.uniform(0.26, 0.38) * c.radius, 0.035)
    spot = c.inside(0.35)
    pit = blob(c.rng, c.u, c.v, spot, size, edge=1.2 * size, lobes=3, lobe_depth=0.2)
    pit = pit + 0.12 * fine
    c.paint("yellow", edge * smoothstep(pit, 0.05, 0.35) * 0.55)
    c.paint("red", edge * smoothstep(pit, 0.3, 0.6) * 0.85)
    c.paint("dark brown", edge * smoothstep(pit + 0.15 * c.grain, 0.5, 1.0) * 0.8)


def _vessels(c: Canvas) -> None:
    """Trunks that enter from the rim and branch twice, thinner with each branch."""
    rng, radius = c.rng, c.radius
    paths: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    start = rng.uniform(0, 2 * np.pi)
    for k in range(int(rng.integers(2, 4))):
        angle = start + 2.2 * k + rng.normal(0, 0.3)
        root = 0.98 * c.border(np.array([angle]))[0]
        heading = angle + np.pi + rng.normal(0, 0.35)
        length, width = rng.uniform(0.8, 1.3) * radius, max(0.017, 0.055 * radius)
        _grow(c, paths, root * np.cos(angle), root * np.sin(angle), heading, length, width)
    u, v, widths = (np.concatenate(part) for part in zip(*paths, strict=True))
    cover = c.stroke(u, v, widths)
    strength = np.clip(0.78 + 0.15 * c.grain, 0, 1)
    c.paint("red", cover * strength * smoothstep(c.depth, -0.03, 0.01))


def _grow(
    c: Canvas,
    paths: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
    u: float,
    v: float,
    heading: float,
    length: float,
    width: float,
    level: int = 0,
) -> None:
    """Add a winding vessel's points and widths to the paths, then those of its branches."""
    rng, steps = c.rng, max(int(1.4 * c.size * c.radius), 6)
    bend, beat, phase = rng.normal(0, 0.7), rng.uniform(5, 10), rng.uniform(0, 6)
    t = np.linspace(0, 1, steps)
    turn = heading + bend * t + 0.45 * np.sin(t * beat + phase)
    us = u + np.cumsum(np.cos(turn)) * length / steps
    vs = v + np.cumsum(np.sin(turn)) * length / steps
    paths.append((us, vs, width * (1 - 0.5 * t)))
    if level == 2:
        return
    for fork in rng.uniform((0.2, 0.5, 0.8), (0.45, 0.75, 1.0)):
        k = min(int(fork * steps), steps - 1)
        way = turn[k] + rng.choice([-1, 1]) * rng.uniform(0.5, 1.0)
        part = length * rng.uniform(0.35, 0.6)
        _grow(c, paths, us[k], vs[k], way, part, 0.68 * width, level + 1)


def paint_actinic_keratosis(c: Canvas) -> None:
    """AKIEC: strawberry pattern (red net around pale follicles) under white-yellow scale."""
    rng = c.rng
    edge = c.edge(rng.uniform(0.07, 0.13))
    broad, fine = c.noise(max(0.5 * c.radius, 0.1)), c.noise(0.04)
    c.paint("red", edge * np.clip(rng.uniform(0.45, 0.65) + 0.13 * broad + 0.06 * fine, 0, 1))
    follicles = c.cells(rng.uniform(0.058, 0.075), 0.7)
    net = smoothstep(follicles.nearest + 0.05 * fine, 0.26, 0.58)
    c.paint("red", edge * net * 0.5)
    halo = smoothstep(follicles.nearest, 0.28 + 0.18 * follicles.tint, 0.1)
    c.paint("yellow" if rng.random() < 0.6 else "white", edge * halo * 0.62)
    if rng.random() < 0.25:
        c.paint("light brown", edge * smoothstep(broad + 0.3 * fine, 0.1, 1.4) * 0.6)
    crust = smoothstep(c.noise(max(0.35 * c.radius, 0.06)) + 0.5 * fine + 0.3 * c.grain, 0.3, 2.0)
    c.paint("yellow", edge * crust * 0.75)
    flake = smoothstep(c.noise(0.045) + 0.7 * broad + 0.5 * c.grain, 0.5, 2.2)
    c.paint("white", edge * flake * 0.78)


def paint_benign_keratosis(c: Canvas) -> None:
    """BKL: stuck-on tan to brown plaque, sharp border, furrows, milia-like cysts, openings."""
    rng = c.rng
    edge = c.edge(rng.uniform(0.008, 0.018))
    mottle, folds = c.noise(0.05), c.noise(float(np.clip(0.18 * c.radius, 0.03, 0.05)))
    c.paint("tan", edge * 0.95)
    brown = smoothstep(c.noise(max(0.5 * c.radius, 0.1)) + 0.4 * mottle, -1.3, 1.0)
    c.paint("light brown", edge * brown * rng.uniform(0.55, 1.0))
    furrow = smoothstep(np.abs(folds) + 0.15 * c.grain, 0.75, 0.0)
    c.paint("dark brown", edge * furrow * np.clip(rng.uniform(0.3, 0.65) + 0.12 * mottle, 0, 1))
    rim = smoothstep(np.abs(c.depth - 0.012), 0.022, 0.0)
    c.paint("dark brown", edge * rim * np.clip(0.3 + 0.15 * mottle, 0, 1))
    count = float(np.clip(c.radius / 0.2, 0.5, 1.8))
    for _ in range(int(count * rng.uniform(2, 5))):
        size = rng.uniform(0.01, 0.019)
        opening = blob(rng, c.u, c.v, c.inside(0.8), size, edge=0.018)
        c.paint("dark brown", edge * opening * rng.uniform(0.7, 0.95))
    for _ in range(int(count * rng.uniform(6, 11))):
        size = rng.uniform(0.01, 0.021)
        cyst = blob(rng, c.u, c.v, c.inside(0.85), size, edge=0.022)
        c.paint("white", edge * cyst * rng.uniform(0.6, 0.9), spread=0.3)
