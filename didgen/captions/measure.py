"""The measuring captioner: attributes computed from pixels and mask, without any model."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from didgen.captions import artifacts
from didgen.captions.attributes import (
    Artifact,
    Attributes,
    Hair,
    SkinTone,
    skin_tone_word,
)
from didgen.captions.color import MIN_TONE_B, color_words, srgb_to_lab, typology_angle
from didgen.captions.layout import Layout
from didgen.captions.morphology import grow
from didgen.captions.outline import border_width, border_word
from didgen.captions.segment import segment

MaskSource = Literal["given", "segmented", "whole image"]
WORKING_SIDE = 256


class MeasurementError(ValueError):
    """An image or a mask that cannot be measured."""


@dataclass(frozen=True)
class Measurement:
    """Attributes of one image, where its mask came from, and the numbers behind the words.

    `numbers`: ita (degrees), lightness and b (of the surroundings), hair_share, ink_share,
    corner_share; with a mask also area_share, row, column (centroid, 0..1), solidity, axis_ratio,
    asymmetry, border_width (share of the shorter side) and region_lightness (mean L of the mask).
    """

    attributes: Attributes
    mask_source: MaskSource
    numbers: dict[str, float]


@dataclass(frozen=True)
class Surroundings:
    """What lies around the mask: tone, hair lines (H, W) bool of the whole image, artifacts."""

    skin_tone: SkinTone | None
    hair: Hair
    artifacts: tuple[Artifact, ...]
    corners: np.ndarray
    hair_lines: np.ndarray
    numbers: dict[str, float]


def measure(
    image: np.ndarray, mask: np.ndarray | None = None, label: str | None = None
) -> Measurement:
    """Measure one image.

    Shapes: image (H, W, 3) uint8 sRGB, mask (H, W) bool or None; without a mask the image is
    segmented, and if nothing plausible is found only tone, hair and artifacts are stated.
    Raises: MeasurementError for another type, shape or an empty mask.
    """
    _check(image, mask)
    image, mask = _reduce(image, mask)
    lab = srgb_to_lab(image)
    corners = artifacts.dark_corners(lab)
    source: MaskSource = "given"
    if mask is None:
        thin = artifacts.thin_dark(lab) > artifacts.THIN_CONTRAST
        mask = segment(lab, corners, thin)
        source = "whole image" if mask is None else "segmented"
    around = _surroundings(lab, corners, mask)
    numbers = dict(around.numbers)
    words: dict = {
        "diagnosis": label or None,
        "skin_tone": around.skin_tone,
        "hair": around.hair,
        "artifacts": around.artifacts,
    }
    if mask is not None:
        words |= _region(lab, mask, around, numbers)
    return Measurement(Attributes(**words), source, numbers)


def _check(image: np.ndarray, mask: np.ndarray | None) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise MeasurementError(
            f"found an image of type {image.dtype} and shape {image.shape}, expected uint8 RGB "
            "(H, W, 3); convert it first"
        )
    if min(image.shape[:2]) < 32:
        raise MeasurementError(
            f"found an image of shape {image.shape}, expected at least 32x32 pixels; below that "
            "nothing can be measured, leave it out"
        )
    if mask is None:
        return
    if mask.dtype != bool or mask.shape != image.shape[:2]:
        raise MeasurementError(
            f"found a mask of type {mask.dtype} and shape {mask.shape}, expected bool of shape "
            f"{image.shape[:2]} as its image; resize it with nearest neighbour"
        )
    if not mask.any():
        raise MeasurementError(
            "found an empty mask, expected at least one marked pixel; pass None to have the image "
            "segmented"
        )


def _reduce(image: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Shrink to a longer side of at most WORKING_SIDE pixels."""
    height, width = image.shape[:2]
    scale = WORKING_SIDE / max(height, width)
    if scale >= 1:
        return image, mask
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
    if mask is not None:
        gray = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)
        covered = np.asarray(gray)
        # A mask too small for half a pixel keeps the pixel it covers most.
        mask = covered >= min(128, int(covered.max()))
    return image, mask


def _surroundings(lab: np.ndarray, corners: np.ndarray, mask: np.ndarray | None) -> Surroundings:
    """Tone, hair and artifacts; pixels near the mask and the dark corners are left out."""
    side = min(corners.shape)
    far = ~grow(corners, 0.03 * side) if corners.any() else ~corners
    outside = far if mask is None else far & ~grow(mask, 0.02 * side)
    marks = artifacts.ink(lab, outside)
    clear = outside & ~(grow(marks, 0.02 * side) if marks.any() else marks)
    black_hat = artifacts.thin_dark(lab)
    ruler = artifacts.ruler_marks(black_hat, clear)
    lines = artifacts.hair_lines(far & (black_hat > artifacts.THIN_CONTRAST))
    if ruler is not None:
        lines &= ~ruler
    hair_share = float((lines & clear).sum() / max(1, clear.sum()))
    bare = clear & (black_hat < artifacts.THIN_CONTRAST)
    # A mask that fills the field leaves no surroundings: take the brightest tenth of the image.
    if bare.mean() < 0.005:
        bare = (lab[..., 0] >= np.percentile(lab[..., 0], 90)) & far
    if not bare.any():
        bare = np.ones_like(corners)
    lightness, b = float(np.median(lab[bare, 0])), float(np.median(lab[bare, 2]))
    ita = typology_angle(lightness, b)
    found: dict[Artifact, bool] = {
        "ruler": ruler is not None,
        "ink": float(marks.mean()) >= artifacts.INK_FROM,
        "gel bubbles": artifacts.has_bubbles(lab, clear),
        "dark corners": float(corners.mean()) >= artifacts.CORNERS_FROM,
    }
    return Surroundings(
        skin_tone=skin_tone_word(ita) if b >= MIN_TONE_B else None,
        hair=artifacts.hair_word(hair_share),
        artifacts=tuple(name for name, seen in found.items() if seen),
        corners=corners,
        hair_lines=lines,
        numbers={
            "ita": ita,
            "lightness": lightness,
            "b": b,
            "hair_share": hair_share,
            "ink_share": float(marks.mean()),
            "corner_share": float(corners.mean()),
        },
    )


def _region(
    lab: np.ndarray, mask: np.ndarray, around: Surroundings, numbers: dict[str, float]
) -> dict:
    """Layout, border and colors of the masked region as words; adds to `numbers`."""
    layout = Layout.of(mask)
    width = border_width(lab, mask, around.corners)
    numbers |= {
        "area_share": layout.share,
        "row": layout.row,
        "column": layout.column,
        "solidity": layout.outline.solidity,
        "axis_ratio": layout.outline.axis_ratio,
        "asymmetry": layout.outline.asymmetry,
        "border_width": width,
    }
    colored = mask & ~around.corners
    # Where there is hair, its lines over the region are no color of the region.
    if around.hair != "none" and (colored & ~around.hair_lines).sum() >= 0.3 * mask.sum():
        colored &= ~around.hair_lines
    region = lab[colored if colored.any() else mask]
    numbers["region_lightness"] = float(region[:, 0].mean())
    return {
        **layout.words(),
        "border": border_word(width),
        "colors": color_words(region, numbers["lightness"], numbers["b"]),
    }
