"""Measures of one mask and its image: area, contact with the border, pale outside.

Shapes: masks bool (H, W), images uint8 (H, W, 3). All values are shares in [0, 1].
"""

import numpy as np

# Rec. 601 luma, in thousandths so that whole levels stay exact: how light a pixel looks.
_LUMA = np.array([299, 587, 114])
# Levels of 255 above the skin's median from which a pixel is pale.
PALE = 40.0


def area_fraction(mask: np.ndarray) -> float:
    """The share of the image that the mask covers."""
    return float(np.asarray(mask, bool).mean())


def border_contact(mask: np.ndarray) -> float:
    """The share of the image's outermost pixels that the mask covers; 0: it lies inside."""
    mask = np.asarray(mask, bool)
    edge = np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]])
    return float(edge.mean())


def pale_outside(image: np.ndarray, mask: np.ndarray, levels: float = PALE) -> float:
    """The share of the pixels outside the mask that are much lighter than the skin around it.

    Much lighter: at least `levels` of 255 above the median lightness (luma) outside the mask. Glows
    beside the lesion, which strong guidance can draw, show here; vignettes, hair and ink, all dark,
    do not. 0 for a mask that covers the whole image.
    Raises: ValueError where image and mask differ in size.
    """
    image, mask = np.asarray(image), np.asarray(mask, bool)
    if image.shape != (*mask.shape, 3):
        raise ValueError(
            f"found an image of shape {image.shape} and a mask of shape {mask.shape}, expected "
            "(H, W, 3) and (H, W)"
        )
    outside = image[~mask].astype(np.int64) @ _LUMA
    if outside.size == 0:
        return 0.0
    return float((outside >= np.median(outside) + 1000 * levels).mean())
