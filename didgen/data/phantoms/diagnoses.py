"""How the lesions of each diagnosis are painted."""

import numpy as np

from didgen.data.phantoms.canvas import Canvas, blob, smoothstep


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
