"""One lesion: its outline and painting, set by its seed and class alone."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from didgen.data.phantoms.canvas import Canvas, Pose, noise, smoothstep
from didgen.data.phantoms.diagnoses import (
    paint_actinic_keratosis,
    paint_basal_cell_carcinoma,
    paint_benign_keratosis,
    paint_dermatofibroma,
    paint_melanoma,
    paint_nevus,
    paint_vascular,
)
from didgen.data.phantoms.outline import ASYMMETRIC_ABOVE, Outline, draw_outline

MARGIN = 0.09
"""Field units around the outline that soft borders, streaks and vessels may reach."""

LEAST_COLOR_SHARE = 0.06
"""A color named in the truth shows on at least this share of the lesion."""


@dataclass(frozen=True)
class Form:
    """How a class is shaped: mean area share, chance to be irregular, fine roughness,
    redness around it (CIELAB a), painter."""

    area: float
    irregular: float
    rough: float
    flush: float
    paint: Callable[[Canvas], None]


FORMS: dict[str, Form] = {
    "MEL": Form(0.20, 0.95, 0.04, 3.0, paint_melanoma),
    "NV": Form(0.13, 0.05, 0.012, 2.0, paint_nevus),
    "BCC": Form(0.14, 0.25, 0.025, 5.0, paint_basal_cell_carcinoma),
    "AKIEC": Form(0.17, 0.35, 0.035, 7.0, paint_actinic_keratosis),
    "BKL": Form(0.17, 0.3, 0.025, 2.0, paint_benign_keratosis),
    "DF": Form(0.11, 0.05, 0.015, 4.0, paint_dermatofibroma),
    "VASC": Form(0.11, 0.05, 0.015, 5.0, paint_vascular),
}


@dataclass(frozen=True)
class Lesion:
    """A lesion before any photograph: label, seed and outline in its own frame."""

    label: str
    seed: int
    outline: Outline

    @property
    def reach(self) -> float:
        """Largest radius of the outline in field units."""
        return float(self.outline.radius.max())

    @property
    def asymmetric(self) -> bool:
        """Whether the outline differs when mirrored; a melanoma's colors always do."""
        return self.label == "MEL" or self.outline.asymmetry() > ASYMMETRIC_ABOVE


def draw_lesion(label: str, seed: int) -> Lesion:
    """The lesion of a class and seed."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 1]))
    form = FORMS[label]
    area = float(np.clip(form.area * np.exp(rng.normal(0, 0.65)), 0.04, 0.455))
    irregular = rng.random() < form.irregular
    oval = rng.random() < 0.45
    elongation = rng.uniform(1.35, 1.75) if oval else rng.uniform(1.0, 1.12)
    lobed = rng.uniform(0.13, 0.25) if irregular else 0.02
    rough = form.rough * (1.0 if irregular else 0.35)
    for _ in range(20):
        outline = draw_outline(rng, area, elongation, rough, lobed)
        if (outline.shape() == "irregular") == irregular:
            break
    return Lesion(label, seed, outline)


def paint_lesion(
    lesion: Lesion, pose: Pose, skin: np.ndarray, skin_lightness: float
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Paint the lesion onto the skin in place.

    Shapes: skin float32 (size, size, 3) CIELAB; returns the mask bool (size, size) and the
    names of the visible colors.
    """
    size = skin.shape[0]
    window = top, bottom, left, right = _window(lesion, pose, size)
    y, x = np.mgrid[top:bottom, left:right].astype(np.float32)
    u, v = pose.to_lesion((x + 0.5) / size, (y + 0.5) / size)
    rng = np.random.default_rng(np.random.SeedSequence([lesion.seed, 2]))
    depth = lesion.outline.signed_distance(u, v)
    grain = noise(rng, u, v, 0.024)
    # The slopes of these ripples stay well below 1, so the lesion stays in one piece.
    depth += 0.007 * noise(rng, u, v, 0.05) + 0.002 * grain
    warp = noise(rng, u, v, 0.11), noise(rng, u, v, 0.11)
    u, v = u + 0.011 * warp[0], v + 0.011 * warp[1]
    lab = skin[top:bottom, left:right]
    _flush(lab, depth, FORMS[lesion.label].flush * rng.uniform(0.3, 1.3), grain)
    canvas = Canvas(
        u, v, depth, grain, lab, lesion.outline, skin_lightness, rng, pose, size, window
    )
    FORMS[lesion.label].paint(canvas)
    mask = np.zeros((size, size), dtype=bool)
    mask[top:bottom, left:right] = depth > 0
    return mask, canvas.visible_colors(depth > 0, LEAST_COLOR_SHARE)


def _flush(lab: np.ndarray, depth: np.ndarray, redness: float, grain: np.ndarray) -> None:
    """Redden the skin under and around the lesion, in place on CIELAB (h, w, 3)."""
    area = smoothstep(depth, -MARGIN, 0.01) * (1.0 + 0.2 * grain)
    lab[..., 0] -= 0.45 * redness * area
    lab[..., 1] += redness * area


def _window(lesion: Lesion, pose: Pose, size: int) -> tuple[int, int, int, int]:
    """Rows and columns (top, bottom, left, right) that the lesion can touch."""
    x, y = pose.to_image(*(lesion.outline.polygon().T))
    low = np.floor((np.array([y.min(), x.min()]) - MARGIN) * size).astype(int)
    high = np.ceil((np.array([y.max(), x.max()]) + MARGIN) * size).astype(int)
    (top, left), (bottom, right) = np.clip(low, 0, size), np.clip(high, 0, size)
    return int(top), int(bottom), int(left), int(right)
