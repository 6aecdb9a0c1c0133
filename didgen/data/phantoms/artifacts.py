"""What the camera and the clinic leave in a photograph: ruler, ink, gel bubbles, dark corners."""

from __future__ import annotations

import numpy as np

from .fields import image_noise, smoothstep
from .strokes import curves, stroke_coverage

ARTIFACTS: tuple[str, ...] = ("ruler", "ink", "gel bubbles", "dark corners")

_CHANCE = {"ruler": 0.12, "ink": 0.10, "gel bubbles": 0.14, "dark corners": 0.18}
_INK_LAB = np.array([34.0, 32.0, -46.0], dtype=np.float32)


def choose_artifacts(rng: np.random.Generator) -> tuple[str, ...]:
    """The artifacts of a photograph, each by its own chance."""
    return tuple(name for name in ARTIFACTS if rng.random() < _CHANCE[name])


def draw_bubbles(lab: np.ndarray, rng: np.random.Generator) -> None:
    """Gel bubbles, in place on CIELAB (size, size, 3): bright rim, dark inner edge, a glint."""
    size = lab.shape[0]
    grid = (np.arange(size, dtype=np.float32) + 0.5) / size
    heart = rng.uniform(0.1, 0.9, 2)
    for _ in range(int(rng.integers(3, 9))):
        radius = float(0.022 + 0.075 * rng.random() ** 2)
        x0, y0 = np.clip(heart + rng.normal(0, 0.14, 2), 0.04, 0.96)
        reach = 1.4 * radius
        rows = slice(*np.searchsorted(grid, [y0 - reach, y0 + reach]))
        columns = slice(*np.searchsorted(grid, [x0 - reach, x0 + reach]))
        dx, dy = (grid[None, columns] - x0) / radius, (grid[rows, None] - y0) / radius
        r = np.hypot(dx, dy)
        thick = max(0.2, 0.6 / (radius * size))
        rim = smoothstep(np.abs(r - 1.0), thick, 0.0)
        inner = smoothstep(np.abs(r - 0.78), 0.22, 0.0)
        glint = smoothstep(np.hypot(dx + 0.35, dy + 0.38), 0.32, 0.1)
        bright = 15.0 * rim + 22.0 * glint - 5.0 * inner
        patch = lab[rows, columns]
        patch[..., 0] = np.clip(patch[..., 0] + bright, 0, 97)
        patch[..., 1:] *= 1.0 - 0.5 * np.maximum(rim, glint)[..., None]


def draw_ruler(lab: np.ndarray, rng: np.random.Generator) -> None:
    """Ruler ticks along one side, in place on CIELAB (size, size, 3); each fifth is long."""
    size = lab.shape[0]
    side = int(rng.integers(4))
    gap, base = rng.uniform(0.04, 0.06), rng.uniform(0.0, 0.02)
    first, last = sorted(rng.uniform((-0.1, 0.7), (0.3, 1.1)))
    at = np.arange(first, last, gap)
    length = np.where(np.arange(len(at)) % 5 == 0, 0.09, 0.05)
    t = np.linspace(0, 1, int(0.2 * size) + 3)
    along = np.repeat(at[:, None], len(t), axis=1) + rng.uniform(-0.05, 0.05) * t
    across = base + length[:, None] * t
    if side in (1, 3):
        across = 1.0 - across
    x, y = (along, across) if side < 2 else (across, along)
    cover = stroke_coverage(x, y, np.full(x.shape, 0.0085), size)
    _over(lab, cover * 0.85, np.array([14.0, 1.0, -2.0], dtype=np.float32))


def draw_ink(lab: np.ndarray, rng: np.random.Generator) -> None:
    """Violet pen marks near the rim, in place on CIELAB (size, size, 3): a line or some dots."""
    size = lab.shape[0]
    angle = rng.uniform(0, 2 * np.pi)
    heart = 0.5 + rng.uniform(0.36, 0.46) * np.array([np.cos(angle), np.sin(angle)])
    n = int(rng.integers(1, 4))
    along = angle + np.pi / 2 + rng.normal(0, 0.2, n)
    length = rng.uniform(0.12, 0.45, n) if rng.random() < 0.7 else np.full(n, 0.02)
    bend = rng.normal(0.5, 0.5, n)
    offset = rng.normal(0, 0.05, (n, 2))
    start = heart + offset - 0.5 * length[:, None] * np.stack([np.cos(along), np.sin(along)], 1)
    steps = int(1.2 * size)
    x, y = curves(start, along - 0.5 * bend, length, bend, steps)
    width = np.broadcast_to(rng.uniform(0.022, 0.042, (n, 1)), x.shape)
    cover = stroke_coverage(x, y, width, size)
    grain = np.clip(0.72 + 0.16 * image_noise(rng, size, 0.03), 0.35, 0.95)
    _over(lab, cover * grain, _INK_LAB)


def dark_corners(rng: np.random.Generator, size: int) -> np.ndarray:
    """Light 0..1 (size, size) left by the round field of the dermatoscope, sharp or soft."""
    grid = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    x0, y0 = rng.normal(0, 0.015, 2)
    r = np.hypot(grid[None] - np.float32(x0), grid[:, None] - np.float32(y0))
    radius = rng.uniform(0.52, 0.6)
    soft = rng.uniform(0.015, 0.03) if rng.random() < 0.6 else rng.uniform(0.1, 0.18)
    return smoothstep(r, radius + soft, radius - soft) * 0.97 + 0.03


def _over(lab: np.ndarray, alpha: np.ndarray, color: np.ndarray) -> None:
    """Blend one color over the image in place where alpha (size, size) is not zero."""
    hit = alpha > 0
    lab[hit] += alpha[hit][:, None] * (color - lab[hit])
