"""The measuring captioner: attributes computed from pixels and mask, without any model."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image
from scipy import ndimage

from didgen.captions import artifacts
from didgen.captions.attributes import (
    Attributes,
    Border,
    Hair,
    Shape,
    position_word,
    size_word,
    skin_tone_word,
)
from didgen.captions.color import color_words, srgb_to_lab, typology_angle
from didgen.captions.outline import Outline, measure_outline
from didgen.captions.segment import segment

MaskSource = Literal["given", "segmented", "whole image"]
WORKING_SIDE = 256
# Outline: irregular below this solidity, else oval above this ratio of the main axes.
IRREGULAR_BELOW = 0.945
OVAL_ABOVE = 1.22
ASYMMETRIC_ABOVE = 0.16
# Border: width of the transition (contrast over gradient) as a share of the image's side.
BLURRED_ABOVE = 0.05


class MeasurementError(ValueError):
    """An image or a mask that cannot be measured."""


@dataclass(frozen=True)
class Measurement:
    """Attributes of one image, where its mask came from, and the numbers behind the words."""

    attributes: Attributes
    mask_source: MaskSource
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
        mask = segment(lab, corners)
        source = "whole image" if mask is None else "segmented"
    if mask is not None and not mask.any():
        raise MeasurementError("the mask vanishes at the working size; expected at least 4 pixels")
    surroundings, numbers = _surroundings(lab, corners, mask)
    words: dict = {"diagnosis": label or None} | surroundings
    if mask is not None:
        words |= _region(lab, mask, corners, numbers)
    return Measurement(Attributes(**words), source, numbers)


def _check(image: np.ndarray, mask: np.ndarray | None) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise MeasurementError(
            f"expected a uint8 RGB image of shape (H, W, 3), found {image.dtype} of shape "
            f"{image.shape}; convert it first"
        )
    if min(image.shape[:2]) < 32:
        raise MeasurementError(
            f"expected an image of at least 32x32 pixels, found shape {image.shape}"
        )
    if mask is None:
        return
    if mask.dtype != bool or mask.shape != image.shape[:2]:
        raise MeasurementError(
            f"expected a bool mask of shape {image.shape[:2]} as its image, found {mask.dtype} of "
            f"shape {mask.shape}"
        )
    if not mask.any():
        raise MeasurementError("the mask is empty; pass None to have the image segmented")


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
        mask = np.asarray(gray) >= 128
    return image, mask


def _surroundings(
    lab: np.ndarray, corners: np.ndarray, mask: np.ndarray | None
) -> tuple[dict, dict[str, float]]:
    """Skin tone, hair and artifacts."""
    side = min(corners.shape)
    near = np.zeros_like(corners) if mask is None else grow(mask, 0.02 * side)
    far_corners = grow(corners, 0.03 * side) if corners.any() else corners
    outside = ~near & ~far_corners
    marks = artifacts.ink(lab, outside)
    ink_share = float(marks.mean())
    clear = outside & ~(grow(marks, 0.02 * side) if marks.any() else marks)
    black_hat = artifacts.thin_dark(lab)
    ruler = artifacts.has_ruler(black_hat, clear)
    hair = artifacts.hair_lines(lab, clear, black_hat)
    hair_share = float(hair.sum() / max(1, clear.sum()))
    bare = clear & (black_hat < artifacts.THIN_CONTRAST)
    # A lesion that fills the field leaves no surroundings: take the brightest tenth of the image.
    if bare.mean() < 0.005:
        bare = (lab[..., 0] >= np.percentile(lab[..., 0], 90)) & ~corners
    ita = typology_angle(lab[bare]) if bare.any() else typology_angle(lab.reshape(-1, 3))
    found = {
        "ruler": ruler,
        "ink": ink_share >= artifacts.INK_FROM,
        "gel bubbles": artifacts.has_bubbles(lab, clear),
        "dark corners": float(corners.mean()) >= artifacts.CORNERS_FROM,
    }
    words = {
        "skin_tone": skin_tone_word(ita),
        "hair": hair_word(hair_share),
        "artifacts": tuple(name for name, seen in found.items() if seen),
    }
    return words, {"ita": ita, "hair_share": hair_share, "ink_share": ink_share}


def _region(
    lab: np.ndarray, mask: np.ndarray, corners: np.ndarray, numbers: dict[str, float]
) -> dict:
    """Size, outline, border, colors and position of the masked region; adds to `numbers`."""
    rows, columns = np.nonzero(mask)
    row, column = (rows.mean() + 0.5) / mask.shape[0], (columns.mean() + 0.5) / mask.shape[1]
    outline = measure_outline(mask)
    width = border_width(lab, mask, corners)
    share = float(mask.mean())
    numbers |= {
        "area_share": share,
        "row": float(row),
        "column": float(column),
        "solidity": outline.solidity,
        "axis_ratio": outline.axis_ratio,
        "asymmetry": outline.asymmetry,
        "border_width": width,
    }
    return {
        "size": size_word(share),
        "position": position_word(row, column),
        "shape": shape_word(outline),
        "symmetry": "asymmetric" if outline.asymmetry > ASYMMETRIC_ABOVE else "symmetric",
        "border": border_word(width),
        "colors": color_words(lab[mask & ~corners] if (mask & ~corners).any() else lab[mask]),
    }


def grow(mask: np.ndarray, radius: float) -> np.ndarray:
    """The mask widened by a square of the given radius in pixels, at least one."""
    return ndimage.maximum_filter(mask, size=2 * max(1, round(radius)) + 1)


def hair_word(share: float) -> Hair:
    """Hair from the share of the surroundings under thin dark lines."""
    if share < artifacts.HAIR_SOME:
        return "none"
    return "some" if share < artifacts.HAIR_DENSE else "dense"


def shape_word(outline: Outline) -> Shape:
    """Irregular by solidity, else oval by the ratio of the main axes, else round."""
    if outline.solidity < IRREGULAR_BELOW:
        return "irregular"
    return "oval" if outline.axis_ratio > OVAL_ABOVE else "round"


def border_word(width: float) -> Border:
    """Border from the transition's width as a share of the side."""
    return "blurred" if width > BLURRED_ABOVE else "sharp"


def border_width(
    lab: np.ndarray, mask: np.ndarray, corners: np.ndarray, sectors: int = 12
) -> float:
    """Median width of the border's transition over sectors, as a share of the shorter side.

    In each sector: color contrast between a ring inside and a ring outside the contour, divided
    by the steep end (90th percentile) of the gradient along that contrast near the contour.
    """
    side = min(mask.shape)
    reach = 0.06 * side
    distance = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
    near = (np.abs(distance) <= 2 * reach) & ~corners
    rows, columns = np.nonzero(near)
    if len(rows) < 8:
        return 1.0
    center = np.argwhere(mask).mean(axis=0)
    angle = np.arctan2(rows - center[0], columns - center[1])
    sector = ((angle + np.pi) / (2 * np.pi) * sectors).astype(int) % sectors
    inside = mask & near
    outer, inner = near & ~mask, inside
    if not outer.any() or not inner.any():
        return 1.0
    across = lab[outer].mean(axis=0) - lab[inner].mean(axis=0)
    across /= max(float(np.linalg.norm(across)), 1e-6)
    profile = ndimage.gaussian_filter(lab @ across, 0.008 * side)
    gradient = np.hypot(*np.gradient(profile))[rows, columns]
    value, depth = profile[rows, columns], distance[rows, columns]
    widths = []
    for index in range(sectors):
        here = sector == index
        low, high = here & (depth > 0.7 * reach), here & (depth < -0.7 * reach)
        edge = here & (np.abs(depth) < 0.7 * reach)
        if low.sum() < 3 or high.sum() < 3 or edge.sum() < 3:
            continue
        contrast = float(np.median(value[high]) - np.median(value[low]))
        steep = float(np.percentile(gradient[edge], 90))
        if contrast < 3.0:
            widths.append(1.0)
        else:
            widths.append(min(1.0, contrast / max(steep, 1e-6) / side))
    return float(np.median(widths)) if widths else 1.0
