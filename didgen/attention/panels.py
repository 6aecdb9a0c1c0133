"""Panels that show attention and masks on an image, as rows of pictures."""

import numpy as np

# A perceptually even ramp (anchors of matplotlib's "magma", CC0), dark to bright, sRGB.
_RAMP = np.array(
    [(0, 0, 4), (59, 15, 112), (140, 41, 129), (222, 73, 104), (254, 159, 109), (252, 253, 191)],
    dtype=np.float32,
)
_CONTOUR = np.array([64, 224, 208], dtype=np.uint8)
_BOTH, _MISSED, _ADDED = (150, 150, 150), (90, 160, 235), (240, 150, 80)
_RIM = np.array([16, 24, 32], dtype=np.uint8)


def colorize(values: np.ndarray) -> np.ndarray:
    """Colors of a map (H, W) in [0, 1] as uint8 (H, W, 3), dark for 0 and bright for 1."""
    place = np.clip(values, 0, 1) * (len(_RAMP) - 1)
    low = np.minimum(place.astype(int), len(_RAMP) - 2)
    part = (place - low)[..., None]
    return (_RAMP[low] * (1 - part) + _RAMP[low + 1] * part).round().astype(np.uint8)


def overlay(image: np.ndarray, values: np.ndarray, strength: float = 0.6) -> np.ndarray:
    """An image, uint8 (H, W, 3), under the colors of a map (H, W) in [0, 1]."""
    mixed = image * (1 - strength) + colorize(values) * strength
    return mixed.round().astype(np.uint8)


def draw_contour(image: np.ndarray, mask: np.ndarray, width: int = 1) -> np.ndarray:
    """A copy of the image with the border of the mask (H, W): turquoise within, a dark rim without.

    Each line is `width` px wide; together they are seen on pale and on dark skin.
    """
    from scipy.ndimage import binary_dilation, binary_erosion

    drawn = image.copy()
    drawn[binary_dilation(mask, iterations=width) & ~mask] = _RIM
    drawn[mask & ~binary_erosion(mask, iterations=width)] = _CONTOUR
    return drawn


def enlarge(values: np.ndarray, factor: int) -> np.ndarray:
    """Repeat every pixel of an array (H, W, ...) `factor` times along both sides."""
    return values.repeat(factor, axis=0).repeat(factor, axis=1)


def attention_panel(
    image: np.ndarray,
    lesion: np.ndarray,
    skin: np.ndarray,
    mask: np.ndarray,
    gap: int = 4,
    factor: int = 2,
) -> np.ndarray:
    """Four pictures in a row: image, both maps over it, true contour; each enlarged `factor` times.

    Shapes: image uint8 (H, W, 3); maps in [0, 1] and bool mask (H, W); result uint8
    (f H, 4 f W + 3 gap, 3) for the factor f.
    """
    image, lesion, skin, mask = (enlarge(part, factor) for part in (image, lesion, skin, mask))
    pictures = [image, overlay(image, lesion), overlay(image, skin), draw_contour(image, mask, 2)]
    space = np.full((image.shape[0], gap, 3), 255, np.uint8)
    row = [part for picture in pictures for part in (picture, space)][:-1]
    return np.concatenate(row, axis=1)


def truth_panel(
    image: np.ndarray, true: np.ndarray, annotated: np.ndarray, gap: int = 4, factor: int = 2
) -> np.ndarray:
    """Four pictures in a row: image, true outline, found outline, and where the masks differ.

    In the last one both masks are gray, what only the truth has is blue, what only the other has
    is orange. Shapes: image uint8 (H, W, 3), bool masks (H, W); result as `attention_panel`.
    """
    image, true, annotated = (enlarge(part, factor) for part in (image, true, annotated))
    difference = np.full(image.shape, 40, np.uint8)
    difference[true & annotated] = _BOTH
    difference[true & ~annotated] = _MISSED
    difference[annotated & ~true] = _ADDED
    pictures = [image, draw_contour(image, true, 2), draw_contour(image, annotated, 2), difference]
    space = np.full((image.shape[0], gap, 3), 255, np.uint8)
    row = [part for picture in pictures for part in (picture, space)][:-1]
    return np.concatenate(row, axis=1)
