"""The patient: skin tone, its texture, and hair."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .fields import image_noise
from .strokes import curves, stroke_coverage


@dataclass(frozen=True)
class Patient:
    """What all photographs of a patient share: skin CIELAB, hairiness, hair color and width."""

    lab: tuple[float, float, float]
    hair: str
    hair_lab: tuple[float, float, float]
    hair_width: float


def draw_patient(seed: int) -> Patient:
    """The patient of a seed; typology angles run from about 60 down to -40 degrees."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 3]))
    light = rng.random() < 0.65
    angle = rng.uniform(25, 60) if light else rng.uniform(-40, 25)
    b = rng.uniform(13.5, 19.0)
    lightness = 50.0 + b * np.tan(np.radians(angle))
    a = rng.uniform(9.0, 20.0) if light else rng.uniform(11.0, 16.0)
    hair = str(rng.choice(["none", "some", "dense"], p=[0.64, 0.27, 0.09]))
    dark = rng.uniform(8, 26) if light else rng.uniform(4, 10)
    color = (float(dark), float(rng.uniform(1, 6)), float(0.3 * dark))
    return Patient((lightness, a, b), hair, color, float(rng.uniform(0.006, 0.012)))


def draw_skin(patient: Patient, rng: np.random.Generator, size: int) -> np.ndarray:
    """Bare skin, CIELAB float32 (size, size, 3): mottled, with faint furrows and pores."""
    lab = np.empty((size, size, 3), dtype=np.float32)
    broad, blotch = image_noise(rng, size, 0.35), image_noise(rng, size, 0.09)
    furrow, pore = image_noise(rng, size, 0.045), image_noise(rng, size, 0.02)
    contrast = 0.5 + patient.lab[0] / 140.0
    lab[..., 0] = patient.lab[0] + contrast * (
        0.9 * broad + 1.1 * blotch - 2.2 * np.exp(-5.0 * furrow * furrow) + 1.5 * pore
    )
    lab[..., 1] = patient.lab[1] + 0.7 * broad + 1.0 * blotch + 0.6 * pore
    lab[..., 2] = patient.lab[2] - 0.5 * broad + 0.6 * blotch
    return lab


def draw_hair(patient: Patient, rng: np.random.Generator, size: int) -> np.ndarray | None:
    """Coverage 0..1 (size, size) of the patient's hair in this photograph; None without hair."""
    if patient.hair == "none":
        return None
    n = int(rng.integers(5, 13) if patient.hair == "some" else rng.integers(22, 38))
    flow = rng.uniform(0, 2 * np.pi)
    middle = rng.uniform(0.05, 0.95, (n, 2))
    angle = flow + rng.normal(0, 0.45, n)
    length = rng.uniform(0.35, 1.1, n)
    bend = rng.normal(0, 0.7, n)
    start = middle - 0.5 * length[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    steps = int(2.2 * size)
    x, y = curves(start, angle - 0.5 * bend, length, bend, steps)
    taper = 1.0 - 0.5 * np.linspace(0, 1, steps)[None] ** 2
    width = patient.hair_width * rng.uniform(0.7, 1.35, (n, 1)) * taper
    return stroke_coverage(x, y, width, size)
