"""Single-label classification metrics; K classes, N images, all values in [0, 1].

Source: definitions as in scikit-learn, against which the tests check them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

CALIBRATION_BINS = 15
AVERAGING = {
    "micro": "over images: with one label an image precision, recall and F1 all equal the accuracy",
    "macro": "over the classes that occur as truth or as prediction, each alike",
    "weighted": "over the classes by their number of test images: recall equals the accuracy",
    "balanced_accuracy": "mean recall over the classes among the test images (ISIC 2018 Task 3)",
}


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, n_classes: int) -> np.ndarray:
    """Counts (K, K): row = true class, column = predicted class.

    Raises: ValueError for empty or unequal inputs, or indices outside 0..K-1.
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.shape != predictions.shape or labels.ndim != 1 or not len(labels):
        raise ValueError(
            f"found {labels.shape} labels and {predictions.shape} predictions, "
            "expected two equally long, non-empty lists"
        )
    both = np.concatenate([labels, predictions])
    if both.min() < 0 or both.max() >= n_classes:
        raise ValueError(
            f"found class indices {both.min()}..{both.max()}, expected 0..{n_classes - 1}"
        )
    flat = np.bincount(labels * n_classes + predictions, minlength=n_classes**2)
    return flat.reshape(n_classes, n_classes)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Element-wise quotient; 0 where the denominator is 0."""
    above = np.asarray(above, float)
    return np.divide(above, below, out=np.zeros_like(above), where=np.asarray(below) > 0)


def precision_recall_f1(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Each class's precision, recall and F1 (K,), 0 where undefined, and its support."""
    hits = np.diag(confusion)
    support, predicted = confusion.sum(1), confusion.sum(0)
    return {
        "precision": _ratio(hits, predicted),
        "recall": _ratio(hits, support),
        "f1": _ratio(2 * hits, support + predicted),
        "support": support,
    }


def averages(confusion: np.ndarray) -> dict[str, dict[str, float]]:
    """Precision, recall and F1 averaged three ways.

    micro: over images; with one label an image all three equal the accuracy. macro: over the
    classes that occur (as truth or as prediction). weighted: over the classes by their support.
    """
    per_class = precision_recall_f1(confusion)
    accuracy = float(np.trace(confusion) / confusion.sum())
    occurs = (confusion.sum(0) + confusion.sum(1)) > 0
    weights = per_class["support"] / per_class["support"].sum()
    names = ("precision", "recall", "f1")
    return {
        "micro": dict.fromkeys(names, accuracy),
        "macro": {name: float(per_class[name][occurs].mean()) for name in names},
        "weighted": {name: float((per_class[name] * weights).sum()) for name in names},
    }


def balanced_accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Mean recall over the classes that occur among the labels (ISIC 2018 Task 3's metric)."""
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if not len(labels):
        raise ValueError("found no labels, expected at least one")
    return float(np.mean([(predictions[labels == k] == k).mean() for k in np.unique(labels)]))


def auroc(positive: np.ndarray, scores: np.ndarray) -> float | None:
    """Area under the ROC curve, ties counted half; None when all or no images are positive."""
    positive = np.asarray(positive, bool)
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return None
    # Mann-Whitney: the share of (positive, negative) pairs in the right order.
    ranks = rankdata(scores)[positive].sum()
    return float((ranks - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def expected_calibration_error(
    labels: np.ndarray, probabilities: np.ndarray, bins: int = CALIBRATION_BINS
) -> float:
    """Mean |accuracy - confidence| over equal-width bins of confidence, weighted by their images.

    Shapes: (N,) labels, (N, K) probabilities.
    """
    confidence = probabilities.max(1)
    correct = probabilities.argmax(1) == labels
    # Bins are closed above: (0, 1/bins], ..., (1 - 1/bins, 1].
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(place, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def summarize(
    labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]
) -> dict[str, Any]:
    """Every classification metric of one model. Shapes: (N,) labels, (N, K) probabilities.

    A class without test images, or whose images are all of them, has no AUROC: None, and named in
    `auroc_undefined`; `auroc_macro` averages the others. `averaging` says what each average is.
    """
    labels = np.asarray(labels)
    predictions = probabilities.argmax(1)
    confusion = confusion_matrix(labels, predictions, len(classes))
    per_class = precision_recall_f1(confusion)
    areas = [auroc(labels == k, probabilities[:, k]) for k in range(len(classes))]
    defined = [area for area in areas if area is not None]
    return {
        "accuracy": float((predictions == labels).mean()),
        "balanced_accuracy": balanced_accuracy(labels, predictions),
        **averages(confusion),
        "averaging": AVERAGING,
        "auroc_macro": float(np.mean(defined)) if defined else None,
        "auroc_undefined": [
            code for code, area in zip(classes, areas, strict=True) if area is None
        ],
        "ece": expected_calibration_error(labels, probabilities),
        "per_class": {
            code: {
                **{name: float(per_class[name][k]) for name in ("precision", "recall", "f1")},
                "auroc": areas[k],
                "support": int(per_class["support"][k]),
            }
            for k, code in enumerate(classes)
        },
        "confusion": {"classes": list(classes), "rows_true": confusion.tolist()},
    }
