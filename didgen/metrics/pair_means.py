"""Means over pairs of images, such as the mean MS-SSIM or LPIPS of a set, with their intervals.

Legend: P pairs, N images. Pairs that share an image are not independent: the interval resamples
images, and a pair counts as often as both of its images were drawn.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Pairs:
    """Indices of the first and second image of each pair, both (P,); `within` one set or two."""

    first: np.ndarray
    second: np.ndarray
    within: bool


def draw_pairs(
    first: np.ndarray, second: np.ndarray | None, count: int, seed: int = 0
) -> Pairs:  # fmt: skip
    """Up to `count` different pairs of one class each, drawn from all there are.

    first, second: classes of the images of two sets; `second` None for pairs within the first.
    Raises: ValueError where no two images share a class.
    """
    rng = np.random.default_rng([seed, 6])
    other = first if second is None else second
    left, right = [], []
    for label in np.unique(first):
        a, b = np.flatnonzero(first == label), np.flatnonzero(other == label)
        if second is None:
            i, j = np.triu_indices(len(a), 1)
        else:
            i, j = (grid.ravel() for grid in np.indices((len(a), len(b))))
        # At most `count` of a class are needed, however many there are.
        kept = rng.permutation(len(i))[:count] if len(i) <= 4_000_000 else None
        kept = rng.integers(0, len(i), count) if kept is None else kept
        left.append(a[i[kept]])
        right.append(b[j[kept]])
    sizes = np.array([len(part) for part in left])
    if not sizes.sum():
        raise ValueError("found no two images of one class, expected at least one pair")
    # Classes take turns, so that each has its share.
    turns = np.concatenate([np.arange(size) for size in sizes])
    order = np.lexsort((rng.random(len(turns)), turns))[:count]
    return Pairs(np.concatenate(left)[order], np.concatenate(right)[order], second is None)


def pair_mean_interval(
    values: np.ndarray, pairs: Pairs, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of the pairs' values (P,) and its bootstrap interval over images (mean, low, high)."""
    rng = np.random.default_rng([seed, 7])
    first, n_first = _counted(pairs.first, pairs.second if pairs.within else None)
    if pairs.within:
        first, second = first[: len(values)], first[len(values) :]
    else:
        second, n_second = _counted(pairs.second, None)
    means = []
    for _ in range(resamples):
        weights = rng.multinomial(n_first, np.full(n_first, 1 / n_first))
        others = weights
        if not pairs.within:
            others = rng.multinomial(n_second, np.full(n_second, 1 / n_second))
        product = weights[first] * others[second]
        if product.sum():
            means.append(float(product @ values / product.sum()))
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(np.mean(values)), float(low), float(high)


def _counted(first: np.ndarray, second: np.ndarray | None) -> tuple[np.ndarray, int]:
    """Indices renumbered from 0 without gaps, and how many images they name."""
    every = first if second is None else np.concatenate([first, second])
    names, place = np.unique(every, return_inverse=True)
    return place, len(names)
