"""How well two masks agree at their borders: boundary IoU and the 95 % Hausdorff distance.

Shapes: masks are bool (H, W). A mask that reaches the image's edge has its border there too.
"""

import numpy as np
from scipy import ndimage

# Cheng et al. 2021 (CVPR): the band is 2 % of the image's diagonal wide.
BAND = 0.02
PERCENTILE = 95.0


class MaskError(ValueError):
    """Two masks that cannot be compared; the message says what was found and expected."""


def _checked(predicted: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    predicted, true = np.asarray(predicted), np.asarray(true)
    for mask in (predicted, true):
        if mask.dtype != bool or mask.ndim != 2:
            raise MaskError(
                f"found a {mask.dtype} mask of shape {mask.shape}, expected bool (H, W); "
                "threshold it and compare image by image"
            )
    if predicted.shape != true.shape:
        raise MaskError(
            f"found masks of shapes {predicted.shape} and {true.shape}, expected equal ones; "
            "resize one with nearest neighbour"
        )
    return predicted, true


def band_width(height: int, width: int, share: float = BAND) -> int:
    """Width of the boundary band in px: a share of the diagonal, at least 1."""
    return max(1, round(share * float(np.hypot(height, width))))


def boundary_band(mask: np.ndarray, distance: int) -> np.ndarray:
    """The pixels of a mask within `distance` px (chessboard) of its border, bool (H, W).

    Equal to the mask minus its erosion by a 3x3 square, `distance` times, as in the authors' code;
    beyond the image's edge there is background.
    """
    side = 2 * distance + 1
    inner = ndimage.minimum_filter(mask.astype(np.uint8), size=side, mode="constant", cval=0)
    return mask & (inner == 0)


def boundary_iou(predicted: np.ndarray, true: np.ndarray, share: float = BAND) -> float:
    """Boundary IoU (Cheng et al. 2021) of two masks: IoU of their bands, in [0, 1].

    Two empty masks agree perfectly (1). Raises: `MaskError` for other than two bool (H, W) masks.
    Source: github.com/bowenc0221/boundary-iou-api, `mask_to_boundary` and `boundary_iou`.
    """
    predicted, true = _checked(predicted, true)
    height, width = true.shape
    distance = band_width(height, width, share)
    first, second = boundary_band(predicted, distance), boundary_band(true, distance)
    union = int((first | second).sum())
    return float((first & second).sum() / union) if union else 1.0


def surface(mask: np.ndarray) -> np.ndarray:
    """The outermost pixels of a mask, those with a side on the background, bool (H, W)."""
    return mask & ~ndimage.binary_erosion(mask)


def hausdorff95(predicted: np.ndarray, true: np.ndarray, percentile: float = PERCENTILE) -> float:
    """HD95: the larger of both directions' 95th percentile of border-to-border distance, in px.

    From each outermost pixel of one mask to the nearest one of the other, percentiles with linear
    interpolation (as MONAI). Two empty masks: 0. One empty mask: the image's diagonal, the largest
    distance there is, so that a failure counts in a mean instead of leaving it.
    Raises: `MaskError` for other than two bool (H, W) masks.
    """
    predicted, true = _checked(predicted, true)
    if not predicted.any() and not true.any():
        return 0.0
    if not predicted.any() or not true.any():
        return float(np.hypot(*true.shape))
    first, second = surface(predicted), surface(true)
    to_second = ndimage.distance_transform_edt(~second)[first]
    to_first = ndimage.distance_transform_edt(~first)[second]
    return float(max(np.percentile(to_second, percentile), np.percentile(to_first, percentile)))
