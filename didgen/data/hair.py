"""Dark hair removed from dermoscopic photographs, in the manner of DullRazor.

Lee et al. 1997, DullRazor: find what is dark and narrow, keep of it what is long and straight, and
interpolate across. Departures: 12 directions instead of 3, lengths relative to the photograph, and
colors from all sides of a hair instead of the two across it. Light hair is not found. Ruler ticks
and thin pen strokes are dark, narrow and straight too, and go with the hair.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.draw import line

DIRECTIONS = 12
# Hair is searched at this size of the shorter side: enough to see it, quick enough for thousands.
WORKING_SIDE = 320


@dataclass(frozen=True)
class HairRule:
    """What counts as hair; lengths are shares of the shorter side.

    reach: hairs up to about half as wide are found; contrast: how much darker than what lies
    beside it (0..255); length: the shortest straight piece of a hair; margin: rim replaced too.
    """

    reach: float = 0.04
    contrast: float = 20.0
    length: float = 0.11
    margin: float = 0.006


def remove_hair(image: np.ndarray, rule: HairRule | None = None) -> np.ndarray:
    """Replace dark hair by the colors around it; pixels without hair keep their values.

    Shapes: uint8 (H, W, 3) in and out. Raises: ValueError for another type or shape.
    """
    rule = rule or HairRule()
    hair = find_hair(image, rule)
    return fill(image, hair, rule.margin * min(image.shape[:2])) if hair.any() else image


def find_hair(image: np.ndarray, rule: HairRule | None = None) -> np.ndarray:
    """Mark the pixels of dark hair. Shapes: uint8 (H, W, 3) -> bool (H, W).

    Raises: ValueError for another type or shape.
    """
    rule = rule or HairRule()
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"found an image of {image.dtype} and shape {image.shape}, expected uint8 (H, W, 3)"
        )
    height, width = image.shape[:2]
    shrink = min(1.0, WORKING_SIDE / min(height, width))
    if shrink < 1.0:
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
    else:
        small = image
    side = min(small.shape[:2])
    # The brightest channel: skin and lesion are light in red, hair is dark in every channel.
    marked = _black_hat(small.max(axis=2), _pixels(rule.reach, side)) > rule.contrast
    marked = _long_pieces(marked, _pixels(rule.length, side))
    margin = max(1, round(rule.margin * side))
    marked = ndimage.binary_dilation(marked, iterations=margin)
    if shrink < 1.0:
        large = Image.fromarray(marked).resize((width, height), Image.Resampling.NEAREST)
        marked = np.asarray(large)
    return marked


def fill(image: np.ndarray, holes: np.ndarray, spread: float) -> np.ndarray:
    """Interpolate the holes from the pixels around them, near ones counting most.

    Shapes: image uint8 (H, W, 3), holes bool (H, W); spread: width of the Gaussian weight, px.
    Where nothing is near, the nearest pixel that is no hole gives its color.
    """
    if holes.all():
        return image
    rows, columns = ndimage.distance_transform_edt(
        holes, return_distances=False, return_indices=True
    )
    filled = image[rows, columns].astype(np.float32)
    known = (~holes).astype(np.float32)
    spread = max(1.0, spread)
    weight = ndimage.gaussian_filter(known, spread)
    near = holes & (weight > 1e-3)
    for channel in range(3):
        total = ndimage.gaussian_filter(image[..., channel] * known, spread)
        filled[..., channel][near] = total[near] / weight[near]
    result = image.copy()
    result[holes] = np.clip(np.rint(filled[holes]), 0, 255).astype(np.uint8)
    return result


def _pixels(share: float, side: int) -> int:
    """A length in px, odd, so that a line of it has a middle."""
    return max(3, round(share * side) // 2 * 2 + 1)


def _lines(length: int) -> list[np.ndarray]:
    """Footprints (length, length) of straight lines through the middle, one a direction."""
    half = length // 2
    footprints = []
    for k in range(DIRECTIONS):
        angle = np.pi * k / DIRECTIONS
        dy, dx = round(half * np.sin(angle)), round(half * np.cos(angle))
        footprint = np.zeros((length, length), bool)
        footprint[line(half - dy, half - dx, half + dy, half + dx)] = True
        footprints.append(footprint)
    return footprints


def _black_hat(gray: np.ndarray, length: int) -> np.ndarray:
    """How much darker each pixel is than both sides of the narrow thing that it belongs to.

    The largest difference between a closing by an oriented line and the image. (H, W), 0..255.
    """
    best = np.zeros(gray.shape, np.uint8)
    for footprint in _lines(length):
        closed = ndimage.grey_closing(gray, footprint=footprint, mode="nearest")
        np.maximum(best, closed - gray, out=best)
    return best


def _long_pieces(marked: np.ndarray, length: int) -> np.ndarray:
    """Keep what holds a straight line of `length` px in some direction; dots and nets go."""
    kept = np.zeros_like(marked)
    for footprint in _lines(length):
        # Hairs bend a little and leave the image: two pixels of slack, edges continued.
        kept |= ndimage.binary_opening(marked, structure=footprint)
    return kept & marked
