"""How often judges see in an image the class that its label says."""

from dataclasses import dataclass

import numpy as np

from didgen.metrics.significance import wilson_interval


@dataclass(frozen=True)
class Agreement:
    """A class: images, independent ones among them, the share seen as labelled, its interval."""

    n: int
    n_independent: int
    share: float
    low: float
    high: float


def class_agreement(
    labels: np.ndarray,
    seen: np.ndarray,
    clusters: np.ndarray | None = None,
    *,
    confidence: float,
) -> dict[str, Agreement]:
    """For each class of the labels, how often it is seen; Wilson's interval over lesions.

    Shapes: labels and clusters (N,), seen (J, N), the class that each of J judges sees. A share is
    the mean over judges, not the vote of all, so that more judges do not make images look better.
    The interval is for other images and the same judges. Raises: ValueError for other shapes.
    """
    seen = np.atleast_2d(seen)
    if seen.shape[1] != len(labels) or not len(labels):
        raise ValueError(f"found {len(labels)} labels and judgements of shape {seen.shape}")
    clusters = np.arange(len(labels)) if clusters is None else clusters
    agreements = {}
    for label in np.unique(labels):
        own = labels == label
        share = float((seen[:, own] == label).mean())
        independent = len(np.unique(clusters[own]))
        ends = wilson_interval(share, independent, confidence)
        agreements[str(label)] = Agreement(int(own.sum()), independent, share, *ends)
    return agreements


def seen_instead(labels: np.ndarray, seen: np.ndarray, classes: list[str]) -> np.ndarray:
    """Shares of each class seen (columns) in images of each label (rows), (K, K); rows sum to 1.

    A row without images is all 0. Shapes as `class_agreement`.
    """
    seen = np.atleast_2d(seen)
    table = np.zeros((len(classes), len(classes)))
    for row, label in enumerate(classes):
        own = seen[:, labels == label]
        if own.size:
            table[row] = [(own == other).mean() for other in classes]
    return table
