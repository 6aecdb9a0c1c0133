"""Single-label classification metrics; K classes, N images, all values in [0, 1]."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn import metrics

CALIBRATION_BINS = 15
AVERAGING = {
    "micro": "over images: with one label per image precision, recall and F1 all equal the "
    "accuracy",
    "macro": "over the classes that occur as truth or as prediction, each alike",
    "weighted": "over the classes by their number of test images: recall equals the accuracy",
    "balanced_accuracy": "mean recall over the classes among the test images (ISIC 2018 Task 3)",
}


def balanced_accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Mean recall over the classes that occur among the labels (ISIC 2018 Task 3's metric).

    Shapes: (N,) each. Raises: ValueError for empty or unequal inputs.
    """
    # sklearn's balanced_accuracy_score warns of predicted classes that no image has.
    present = np.unique(labels)
    return float(metrics.recall_score(labels, predictions, labels=present, average="macro"))


def macro_f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Mean F1 over the classes that occur among the labels. Shapes: (N,) each."""
    present = np.unique(labels)
    return float(
        metrics.f1_score(labels, predictions, labels=present, average="macro", zero_division=0)
    )


def accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    """The share of right predictions. Shapes: (N,) each."""
    return float(metrics.accuracy_score(labels, predictions))


# The metrics that may decide, by the names they have in the configuration.
DECIDING = {"balanced accuracy": balanced_accuracy, "macro F1": macro_f1, "accuracy": accuracy}


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature in [1/20, 20] that gives held-out images the least NLL (Guo et al. 2017).

    Shapes: logits (N, K), labels (N,). Logits over it are calibrated; predictions stay.
    """

    def nll(log_temperature: float) -> float:
        scaled = log_softmax(logits / np.exp(log_temperature), axis=1)
        return -float(scaled[np.arange(len(labels)), labels].mean())

    reach = np.log(20)
    return float(np.exp(minimize_scalar(nll, bounds=(-reach, reach), method="bounded").x))


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
    Undefined precision, recall and F1 are 0. Raises: ValueError for empty or unequal inputs, or
    labels outside 0..K-1.
    """
    labels = np.asarray(labels)
    if labels.shape != probabilities.shape[:1] or probabilities.shape[1:] != (len(classes),):
        raise ValueError(
            f"found {labels.shape} labels and {probabilities.shape} probabilities of "
            f"{len(classes)} classes, expected (N,) and (N, {len(classes)})"
        )
    if not len(labels) or labels.min() < 0 or labels.max() >= len(classes):
        span = f"class indices {labels.min()}..{labels.max()}" if len(labels) else "no images"
        raise ValueError(f"found {span}, expected at least one image of 0..{len(classes) - 1}")
    predictions = probabilities.argmax(1)
    every, names = np.arange(len(classes)), ("precision", "recall", "f1")
    averages = {"micro": dict.fromkeys(names, float((predictions == labels).mean()))}
    for kind, over in (("macro", np.union1d(labels, predictions)), ("weighted", every)):
        values = metrics.precision_recall_fscore_support(
            labels, predictions, labels=over, average=kind, zero_division=0
        )
        averages[kind] = dict(zip(names, map(float, values[:3]), strict=True))
    per_class = metrics.precision_recall_fscore_support(
        labels, predictions, labels=every, zero_division=0
    )
    counts = np.bincount(labels, minlength=len(classes))
    areas = [
        float(metrics.roc_auc_score(labels == k, probabilities[:, k]))
        if 0 < counts[k] < len(labels)
        else None
        for k in every
    ]
    defined = [area for area in areas if area is not None]
    return {
        "accuracy": averages["micro"]["recall"],
        "balanced_accuracy": balanced_accuracy(labels, predictions),
        **averages,
        "averaging": AVERAGING,
        "auroc_macro": float(np.mean(defined)) if defined else None,
        "auroc_undefined": [
            code for code, area in zip(classes, areas, strict=True) if area is None
        ],
        "ece": expected_calibration_error(labels, probabilities),
        "per_class": {
            code: {
                **{name: float(per_class[place][k]) for place, name in enumerate(names)},
                "auroc": areas[k],
                "support": int(counts[k]),
            }
            for k, code in enumerate(classes)
        },
        "confusion": {
            "classes": list(classes),
            "rows_true": metrics.confusion_matrix(labels, predictions, labels=every).tolist(),
        },
    }
