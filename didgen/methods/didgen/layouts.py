"""Whether a mask can be a layout: refused, or doubtful, before anything is sampled.

Masks are bool (H, W).
"""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage

from didgen.methods.protocol import Request

LOGGER = logging.getLogger(__name__)

# Eq. 5 is read on this grid: a lesion that fills no cell of it by half is invisible there.
GRID = 32
NAMED = 3


class LayoutError(ValueError):
    """A mask that no image can follow."""


def layout_doubts(mask: np.ndarray, image_size: int) -> list[str]:
    """What is doubtful about a mask that is to be followed; nothing, for most.

    Several lesions are allowed: guidance asks for all of them. So is a lesion that touches the
    image's borders, as many photographs show one.

    Raises LayoutError for a mask that is not bool, is of another size than the images, is empty
    or full.
    """
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise LayoutError(
            f"found an array of {mask.dtype} with shape {mask.shape}, expected a bool mask (H, W); "
            "threshold it and take one channel"
        )
    if mask.shape != (image_size, image_size):
        raise LayoutError(
            f"found {mask.shape[1]}x{mask.shape[0]} px, expected {image_size}x{image_size} px as "
            "the backbone's images; resize the mask with the nearest pixel"
        )
    if mask.all() or not mask.any():
        raise LayoutError(
            f"the mask is {'full' if mask.all() else 'empty'}: it has no outline to follow; leave "
            "it out"
        )
    doubts = []
    pieces = ndimage.label(mask, structure=np.ones((3, 3)))[1]
    if pieces > 1:
        doubts.append(
            "several lesions: guidance asks for all, annotation keeps the largest unless "
            "keep_largest is off"
        )
    if all(side.any() for side in (mask[0], mask[-1], mask[:, 0], mask[:, -1])):
        doubts.append("touches all four borders: hardly any skin is left to tell it from")
    cell = max(1, image_size // GRID)
    side = image_size // cell * cell
    cells = mask[:side, :side].reshape(side // cell, cell, side // cell, cell).mean((1, 3))
    if not (cells > 0.5).any():
        doubts.append(f"too small: it fills no cell of the {GRID}x{GRID} maps by half")
    return doubts


def check_layouts(requests: Sequence[Request], image_size: int) -> dict[str, list[str]]:
    """Check the masks of all requests that have one: each kind of doubt, and the ids it is of.

    Raises LayoutError, naming the request.
    """
    by_doubt: dict[str, list[str]] = defaultdict(list)
    for request in requests:
        if request.mask is None:
            continue
        try:
            doubts = layout_doubts(request.mask, image_size)
        except LayoutError as error:
            raise LayoutError(f"condition mask of {request.id}: {error}") from None
        for doubt in doubts:
            by_doubt[doubt].append(request.id)
    return dict(by_doubt)


def log_doubts(doubts: Mapping[str, Sequence[str]]) -> None:
    """Say each kind of doubt once, with the first ids and the count."""
    for doubt, ids in doubts.items():
        more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
        LOGGER.warning("condition masks of %s%s: %s", ", ".join(ids[:NAMED]), more, doubt)
