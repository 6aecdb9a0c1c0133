"""Intervals of measures of two whole sets of images, from halves drawn without repeats.

Drawing with replacement would repeat images, and a repeated image is its own nearest neighbour and
its own kernel pair. Halves without replacement keep them apart, and the spread over halves is that
of the whole set (the delete-half jackknife, Shao and Wu 1989). Legend: N images, L lesions.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats

Measures = Callable[[np.ndarray, np.ndarray], dict[str, float]]


class Halved(NamedTuple):
    """A measure of two whole sets, its mean over random halves of both, and half its interval.

    sizes: of the whole sets, and on average of the halves, the sum of 1 / N of the two.
    """

    value: float
    of_halves: float
    reach: float
    sizes: tuple[float, float]

    @property
    def interval(self) -> tuple[float, float]:
        """Around the value; for a measure without bias."""
        return self.value - self.reach, self.value + self.reach

    @property
    def extrapolated(self) -> tuple[float, float, float]:
        """Value, low and high for infinitely many images, where the bias falls as 1 / N.

        The line in 1 / N through the whole sets and their halves (Chong and Forsyth 2020). It may
        fall below 0 where the true value is near it.
        """
        whole, halves = self.sizes
        value = self.value - whole * (self.of_halves - self.value) / (halves - whole)
        return value, value - self.reach, value + self.reach


def half(clusters: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Whether each image (N,) belongs to a random half of the lesions, as close as can be."""
    names, place = np.unique(clusters, return_inverse=True)
    chosen = np.zeros(len(names), bool)
    chosen[rng.permutation(len(names))[: (len(names) + rng.integers(2)) // 2]] = True
    return chosen[place]


def least_half(clusters: np.ndarray) -> int:
    """The fewest images that a half of the lesions can hold; clusters (N,)."""
    sizes = np.sort(np.unique(clusters, return_counts=True)[1])
    return int(sizes[: len(sizes) // 2].sum())


def half_sample_intervals(
    measures: Measures,
    real: np.ndarray,
    synthetic: np.ndarray,
    clusters: np.ndarray,
    confidence: float,
    repeats: int,
    seed: int,
) -> dict[str, Halved]:
    """Each measure with its mean and its spread over halves.

    `measures` takes features (N, D) of real and of synthetic images; `clusters` are the lesions of
    the real ones. Raises: ValueError for fewer than four lesions or synthetic images.
    """
    if min(len(np.unique(clusters)), len(synthetic)) < 4:
        raise ValueError(
            f"found {len(np.unique(clusters))} real lesions and {len(synthetic)} synthetic images, "
            "expected at least four of each to halve"
        )
    rng = np.random.default_rng([seed, 4])
    values = measures(real, synthetic)
    samples = {name: [] for name in values}
    of_halves = []
    for _ in range(repeats):
        kept = half(clusters, rng), half(np.arange(len(synthetic)), rng)
        of_halves.append(1 / kept[0].sum() + 1 / kept[1].sum())
        for name, value in measures(real[kept[0]], synthetic[kept[1]]).items():
            samples[name].append(value)
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    sizes = 1 / len(real) + 1 / len(synthetic), float(np.mean(of_halves))
    return {
        name: Halved(values[name], float(np.mean(each)), z * float(np.std(each, ddof=1)), sizes)
        for name, each in samples.items()
    }


def matched_with_floor(
    measures: Measures,
    real: np.ndarray,
    synthetic: np.ndarray,
    clusters: np.ndarray,
    repeats: int,
    seed: int,
) -> tuple[int, dict[str, dict[str, tuple[float, float]]]]:
    """Synthetic against real and real against real, at the same size: N and mean and sd of each.

    The real images are halved by lesion: one half is the reference, against it stand as many images
    of the other half ("real") and as many synthetic ones ("synthetic").
    """
    rng = np.random.default_rng([seed, 5])
    splits = [half(clusters, rng) for _ in range(repeats)]
    n = min(len(synthetic), *(int(min(s.sum(), (~s).sum())) for s in splits))
    samples: dict[str, dict[str, list[float]]] = {"synthetic": {}, "real": {}}
    for split in splits:
        reference, other = (_draw(real[part], n, rng) for part in (split, ~split))
        for name, against in (("synthetic", _draw(synthetic, n, rng)), ("real", other)):
            for key, value in measures(reference, against).items():
                samples[name].setdefault(key, []).append(value)
    summary = {
        name: {key: (float(np.mean(v)), float(np.std(v, ddof=1))) for key, v in each.items()}
        for name, each in samples.items()
    }
    return n, summary


def _draw(features: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    return features[rng.permutation(len(features))[:n]]
