"""Keeping or rejecting samples by their scores, and how much quality a rejection gains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

FRACTIONS = tuple(k / 20 for k in range(20))


@dataclass(frozen=True)
class Gate:
    """A bound on one score: kept are finite values with low <= value <= high (None: unbounded)."""

    name: str
    score: str
    low: float | None = None
    high: float | None = None

    def passes(self, values: np.ndarray) -> np.ndarray:
        """Which of the values (N,) are kept, bool (N,); without any bound, all."""
        values = np.asarray(values, float)
        if self.low is None and self.high is None:
            return np.ones(len(values), bool)
        low = -np.inf if self.low is None else self.low
        high = np.inf if self.high is None else self.high
        return np.isfinite(values) & (values >= low) & (values <= high)


def rejections(scores: Mapping[str, np.ndarray], gates: Sequence[Gate]) -> list[list[str]]:
    """For each of N samples the names of the gates that it fails, in the gates' order.

    Raises: ValueError for a gate whose score is absent.
    """
    absent = sorted({gate.score for gate in gates} - set(scores))
    if absent:
        raise ValueError(f"found scores {sorted(scores)}, expected also {absent}")
    passed = {gate.name: gate.passes(scores[gate.score]) for gate in gates}
    count = len(next(iter(scores.values()))) if scores else 0
    return [[name for name, fine in passed.items() if not fine[i]] for i in range(count)]


def rejection_curve(
    confidence: np.ndarray, quality: np.ndarray, fractions: Sequence[float] = FRACTIONS
) -> list[dict[str, Any]]:
    """Mean quality of what remains when the least confident share is rejected, at each share.

    `confidence` and `quality` (N,) must be different measurements, or the curve rises by itself.
    Of equally confident samples, the later are rejected first. One point a fraction in [0, 1), with
    at least one sample kept: rejected (share), kept (count), quality (mean).
    Raises: ValueError for values that are not finite, of unequal number, or fractions out of range.
    """
    confidence, quality = np.asarray(confidence, float), np.asarray(quality, float)
    if confidence.shape != quality.shape or confidence.ndim != 1 or not len(confidence):
        raise ValueError(
            f"found {confidence.shape} confidences and {quality.shape} qualities, expected the "
            "same number, at least one"
        )
    if not (np.isfinite(confidence).all() and np.isfinite(quality).all()):
        raise ValueError("found values that are not finite; leave these samples out and say so")
    if not all(0 <= fraction < 1 for fraction in fractions):
        raise ValueError(f"found fractions {list(fractions)}, expected values in [0, 1)")
    order = np.argsort(-confidence, kind="stable")
    means = np.cumsum(quality[order]) / np.arange(1, len(order) + 1)
    points = []
    for fraction in fractions:
        kept = max(1, len(order) - round(fraction * len(order)))
        share = 1 - kept / len(order)
        points.append({"rejected": share, "kept": kept, "quality": float(means[kept - 1])})
    return points
