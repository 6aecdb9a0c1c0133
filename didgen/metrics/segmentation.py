"""Overlap of binary masks; N images, values in [0, 1], two empty masks agree perfectly (1)."""

from typing import Any

import numpy as np

THRESHOLD = 0.65
EMPTY = (
    "two empty masks: overlap and boundary IoU 1, HD95 0; one empty mask: overlap and boundary "
    "IoU 0, HD95 the image's diagonal"
)


def _counts(predicted: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels in both, in the prediction and in the truth, per image."""
    predicted, true = np.asarray(predicted), np.asarray(true)
    if predicted.dtype != bool or true.dtype != bool:
        raise ValueError(f"found {predicted.dtype} and {true.dtype} masks, expected bool")
    if predicted.shape != true.shape or predicted.ndim < 2:
        raise ValueError(
            f"found masks of shapes {predicted.shape} and {true.shape}, expected equal (N, H, W)"
        )
    axes = (-2, -1)
    return (predicted & true).sum(axes), predicted.sum(axes), true.sum(axes)


def dice(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Dice of each image, 2 |A and B| / (|A| + |B|). Shapes: bool (N, H, W) -> (N,)."""
    both, a, b = _counts(predicted, true)
    total = a + b
    return np.where(total == 0, 1.0, 2 * both / np.maximum(total, 1))


def iou(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Jaccard index of each image, |A and B| / |A or B|. Shapes: bool (N, H, W) -> (N,)."""
    both, a, b = _counts(predicted, true)
    union = a + b - both
    return np.where(union == 0, 1.0, both / np.maximum(union, 1))


def threshold_jaccard(jaccard: np.ndarray, threshold: float = THRESHOLD) -> np.ndarray:
    """The Jaccard index where it reaches the threshold, 0 below (ISIC 2018 Task 1's metric)."""
    jaccard = np.asarray(jaccard, float)
    return np.where(jaccard >= threshold, jaccard, 0.0)


def summarize(
    dices: np.ndarray,
    jaccards: np.ndarray,
    boundaries: np.ndarray | None = None,
    distances: np.ndarray | None = None,
) -> dict[str, Any]:
    """Means over images of the per-image scores, and the spread of Dice. Shapes: (N,) each.

    `boundaries`: boundary IoU; `distances`: HD95 in px, also as median, which single failures
    do not move.
    """
    scores: dict[str, Any] = {
        "dice": float(np.mean(dices)),
        "dice_sd": float(np.std(dices, ddof=1)) if len(dices) > 1 else 0.0,
        "iou": float(np.mean(jaccards)),
        "threshold_jaccard": float(np.mean(threshold_jaccard(jaccards))),
    }
    if boundaries is not None:
        scores["boundary_iou"] = float(np.mean(boundaries))
    if distances is not None:
        scores["hd95"] = float(np.mean(distances))
        scores["hd95_median"] = float(np.median(distances))
    return {**scores, "averaging": "per image, then mean", "empty_masks": EMPTY}
