"""Is one arm better than another on the same test images? Tests, intervals and the verdict.

Legend: S training seeds, N test images, L lesions (clusters), R resamples. Images of one lesion
are not independent, so the interval and the deciding test resample whole lesions.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

RESAMPLES = 10_000
MIN_SEEDS = 2
CHUNK = 1000


@dataclass(frozen=True)
class Interval:
    """A difference (treatment minus control) with its two-sided bootstrap interval."""

    difference: float
    low: float
    high: float
    confidence: float


@dataclass(frozen=True)
class Paired:
    """Per-image scores of two arms, grouped so that the metric is a mean of group means.

    treatment, control: (S, N). groups: (N,) indices; the metric averages within each group, then
    over groups: one group for Dice, the true classes for balanced accuracy. clusters: (N,)
    indices of lesions. Raises: ValueError for shapes that do not fit or values that are not finite.
    """

    treatment: np.ndarray
    control: np.ndarray
    clusters: np.ndarray
    groups: np.ndarray

    def __post_init__(self) -> None:
        t, c = self.treatment, self.control
        if t.ndim != 2 or t.shape != c.shape or not t.size:
            raise ValueError(
                f"found scores of shapes {t.shape} and {c.shape}, "
                "expected two equal ones, (seeds, images)"
            )
        if len(self.clusters) != t.shape[1] or len(self.groups) != t.shape[1]:
            raise ValueError(
                f"found {len(self.clusters)} clusters and {len(self.groups)} groups, "
                f"expected {t.shape[1]}, one for each image"
            )
        if not (np.isfinite(t).all() and np.isfinite(c).all()):
            raise ValueError("found scores that are not finite numbers; evaluate the models again")

    @property
    def differences(self) -> np.ndarray:
        """Treatment minus control of each seed and image (S, N)."""
        return self.treatment.astype(float) - self.control.astype(float)

    def per_seed(self, scores: np.ndarray) -> np.ndarray:
        """The metric of each seed (S,): mean over groups of the means within each group."""
        return np.stack([scores[:, self.groups == g].mean(1) for g in np.unique(self.groups)]).mean(
            0
        )


def clustered_bootstrap(
    data: Paired, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Percentile interval of the metric's difference: over lesions, widened for training chance.

    Each resample draws L lesions with replacement, all images of a lesion together, and takes the
    metric of the seeds' mean differences. A group that it misses altogether is left out of its
    mean. To each is added, with both signs, a draw of t with S - 1 degrees of freedom times the
    standard error over seeds: resampling the few seeds themselves would make the interval too
    narrow. With one seed that chance cannot be known and is not covered.
    """
    rng = np.random.default_rng([seed, 2])
    draws = _lesion_draws(data, resamples, rng)
    per_seed = data.per_seed(data.differences)
    n_seeds = len(per_seed)
    if n_seeds > 1:
        error = per_seed.std(ddof=1) / np.sqrt(n_seeds)
        chance = error * rng.standard_t(n_seeds - 1, resamples)
        draws = np.concatenate([draws + chance, draws - chance])
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(draws, [tail, 100 - tail])
    return Interval(float(per_seed.mean()), float(low), float(high), confidence)


def _lesion_draws(data: Paired, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """The metric's difference in each of R resamples of the lesions (R,)."""
    _, clusters = np.unique(data.clusters, return_inverse=True)
    _, groups = np.unique(data.groups, return_inverse=True)
    n_clusters, n_groups = clusters.max() + 1, groups.max() + 1
    counts = np.zeros((n_clusters, n_groups))
    np.add.at(counts, (clusters, groups), 1.0)
    sums = np.zeros((n_clusters, n_groups))
    np.add.at(sums, (clusters, groups), data.differences.mean(0))
    found = []
    for start in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - start)
        weights = rng.multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), size)
        totals, sizes = weights @ sums, weights @ counts
        present = sizes > 0
        means = np.divide(totals, sizes, out=np.zeros_like(totals), where=present)
        found.append(means.sum(1) / present.sum(1))
    return np.concatenate(found)


def sign_flip_test(data: Paired, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """Two-sided p of the metric's difference: under the null each lesion's arms may be swapped.

    A Monte Carlo randomization test; the observed assignment counts as one of the R + 1, so p is
    never 0. Seeds are averaged first, so they are not counted as independent images.
    """
    _, clusters = np.unique(data.clusters, return_inverse=True)
    _, groups, sizes = np.unique(data.groups, return_inverse=True, return_counts=True)
    weights = 1.0 / sizes[groups] / len(sizes)
    per_lesion = np.bincount(clusters, weights=data.differences.mean(0) * weights)
    observed = abs(per_lesion.sum())
    rng = np.random.default_rng([seed, 3])
    as_large = 0
    for start in range(0, resamples, CHUNK):
        signs = rng.choice([-1.0, 1.0], (min(CHUNK, resamples - start), len(per_lesion)))
        # Rounding must not decide whether a tie counts.
        as_large += int((np.abs(signs @ per_lesion) >= observed - 1e-12).sum())
    return (1 + as_large) / (1 + resamples)


def mcnemar_exact(treatment: np.ndarray, control: np.ndarray) -> float:
    """McNemar's exact two-sided p from per-image correctness (N,) bool; 1 without discordant pairs.

    It takes images as independent, so with several images a lesion it is too sure.
    """
    treatment, control = np.asarray(treatment, bool), np.asarray(control, bool)
    gained, lost = int((treatment & ~control).sum()), int((~treatment & control).sum())
    if gained + lost == 0:
        return 1.0
    return float(stats.binomtest(gained, gained + lost, 0.5).pvalue)


def paired_t(treatment: np.ndarray, control: np.ndarray) -> float:
    """Paired t-test's two-sided p over images (N,); 1 when all differences are 0."""
    differences = np.asarray(treatment, float) - np.asarray(control, float)
    if len(differences) < 2 or not differences.any():
        return 1.0
    if np.ptp(differences) == 0:
        return 0.0
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def wilcoxon(treatment: np.ndarray, control: np.ndarray) -> float:
    """Wilcoxon's signed-rank two-sided p over images (N,); 1 when all differences are 0."""
    differences = np.asarray(treatment, float) - np.asarray(control, float)
    return float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """Holm's step-down correction of several tests' p-values, never above 1."""
    corrected, running = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        running = max(running, (len(p_values) - rank) * p_values[name])
        corrected[name] = min(1.0, running)
    return {name: corrected[name] for name in p_values}


def decide(
    interval: Interval, p: float, n_seeds: int, alpha: float = 0.05, margin: float = 0.0
) -> str:
    """ "helps", "hurts" or "no evidence": the interval and the corrected p must both say so.

    One seed is no evidence: two trainings on the same data differ, and only other seeds tell by
    how much.
    """
    if n_seeds < MIN_SEEDS or p >= alpha:
        return "no evidence"
    if interval.low > margin:
        return "helps"
    return "hurts" if interval.high < 0 else "no evidence"


def sentence(
    verdict: str,
    metric: str,
    interval: Interval,
    control: str,
    p: float,
    n_seeds: int,
    n_test: int,
    alpha: float = 0.05,
) -> str:
    """The verdict in words with its numbers."""
    text = (
        f"{verdict}: {metric} {interval.difference:+.3f} [{interval.low:.3f}, {interval.high:.3f}] "
        f"over {control}, p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}, "
        f"n = {n_seeds} seed{'s' if n_seeds > 1 else ''}, {n_test} test images"
    )
    if n_seeds < MIN_SEEDS:
        text += " (one seed cannot tell the effect from chance in training)"
    elif p < alpha and interval.low <= 0 <= interval.high:
        text += " (these models differ; models trained with other seeds may not)"
    return text
