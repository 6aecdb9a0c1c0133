"""Panels that show attention on an image: image, `<lesion>` map, `<skin>` map, true contour."""

import numpy as np

# A perceptually even ramp (anchors of matplotlib's "magma", CC0), dark to bright, sRGB.
_RAMP = np.array(
    [(0, 0, 4), (59, 15, 112), (140, 41, 129), (222, 73, 104), (254, 159, 109), (252, 253, 191)],
    dtype=np.float32,
)
_CONTOUR = np.array([64, 224, 208], dtype=np.uint8)


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


def draw_contour(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A copy of the image with the inner border of the mask (H, W) drawn in turquoise."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    drawn = image.copy()
    drawn[mask & ~inner] = _CONTOUR
    return drawn


def attention_panel(
    image: np.ndarray, lesion: np.ndarray, skin: np.ndarray, mask: np.ndarray, gap: int = 4
) -> np.ndarray:
    """Four pictures in a row, uint8 (H, 4 W + 3 gap, 3): image, both maps, true contour.

    Shapes: image uint8 (H, W, 3); maps in [0, 1] and bool mask (H, W).
    """
    pictures = [image, overlay(image, lesion), overlay(image, skin), draw_contour(image, mask)]
    space = np.full((image.shape[0], gap, 3), 255, np.uint8)
    row = [part for picture in pictures for part in (picture, space)][:-1]
    return np.concatenate(row, axis=1)
