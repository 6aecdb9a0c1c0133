"""Means over pairs of images, such as the mean MS-SSIM or LPIPS of a set, with their intervals.

Legend: P pairs, N images, each of a unit: its lesion, or itself. Pairs that share a unit are not
independent.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats


class NoPairs(ValueError):
    """No two images can be paired; the message says why."""


@dataclass(frozen=True)
class DrawnPairs:
    """Indices of the first and second image of each pair, both (P,); `within` one set or two."""

    first: np.ndarray
    second: np.ndarray
    within: bool


def draw_pairs(
    first: np.ndarray,
    second: np.ndarray | None,
    count: int,
    seed: int,
    units: np.ndarray | None = None,
) -> DrawnPairs:
    """Up to `count` different pairs of one class each, drawn from all there are.

    first, second: classes of the images of two sets; `second` None for pairs within the first.
    `units` (N,) of the first set: within it, two images of one unit are no pair. Classes take
    turns, so that each has its share. Raises: `NoPairs` where no two images share a class.
    """
    rng = np.random.default_rng([seed, 6])
    other = first if second is None else second
    # Numbers: comparing millions of names would take gigabytes.
    unit = np.arange(len(first)) if units is None else np.unique(units, return_inverse=True)[1]
    left, right = [], []
    for label in np.unique(first):
        a, b = np.flatnonzero(first == label), np.flatnonzero(other == label)
        if second is None:
            i, j = np.triu_indices(len(a), 1)
            apart = unit[a[i]] != unit[a[j]]
            i, j = i[apart], j[apart]
        else:
            i, j = (grid.ravel() for grid in np.indices((len(a), len(b))))
        # At most `count` of a class are needed, however many there are.
        kept = rng.choice(len(i), min(count, len(i)), replace=False)
        left.append(a[i[kept]])
        right.append(b[j[kept]])
    sizes = [len(part) for part in left]
    if not sum(sizes):
        raise NoPairs("found no two images of one class, expected at least one pair")
    turns = np.concatenate([np.arange(size) for size in sizes])
    order = np.lexsort((rng.random(len(turns)), turns))[:count]
    return DrawnPairs(np.concatenate(left)[order], np.concatenate(right)[order], second is None)


def pair_mean_interval(
    values: np.ndarray,
    pairs: DrawnPairs,
    units: tuple[np.ndarray, np.ndarray] | None = None,
    *,
    confidence: float,
) -> tuple[float, float, float]:
    """Mean of the pairs' values (P,) and its t interval over units (mean, low, high).

    `units`: those of the images of both sets, by default each image its own. The variance of the
    mean sums over all couples of pairs that share a unit (Aronow, Samii and Assenova 2015; for two
    sets the two-way clustered one of Cameron, Gelbach and Miller 2011), with n / (n - 1) for n
    units; it is not below that of independent pairs.
    """
    first, second = pairs.first, pairs.second
    if units is not None:
        first, second = units[0][first], units[1][second]
    deviations = values - values.mean()
    if pairs.within:
        sums = [_sums(np.concatenate([first, second]), np.tile(deviations, 2))]
    else:
        sums = [_sums(first, deviations), _sums(second, deviations)]
    own = float((deviations**2).sum())
    # Each pair stands in two units, and counts once.
    shared = sum(float((s**2).sum()) * len(s) / max(1, len(s) - 1) for s in sums) - own
    error = np.sqrt(max(own, shared)) / len(values)
    freedom = max(1, min(map(len, sums)) - 1)
    reach = float(stats.t.ppf(0.5 + confidence / 2, freedom) * error)
    mean = float(np.mean(values))
    return mean, mean - reach, mean + reach


def _sums(units: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The sum of the values of each unit."""
    _, place = np.unique(units, return_inverse=True)
    return np.bincount(place, weights=values)
