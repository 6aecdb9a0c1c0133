"""Tests, effect sizes and intervals from the textbook: the secondary numbers of a comparison.

Legend: N test images (or lesions). Those over images take images as independent; with several
images of a lesion they are overconfident.
"""

import math

import numpy as np
from scipy import stats


def discordant(treatment: np.ndarray, control: np.ndarray) -> tuple[int, int]:
    """How many images (N,) bool only the treatment gets right, and how many only the control."""
    treatment, control = np.asarray(treatment, bool), np.asarray(control, bool)
    return int((treatment & ~control).sum()), int((~treatment & control).sum())


def mcnemar_exact(treatment: np.ndarray, control: np.ndarray) -> float:
    """McNemar's exact two-sided p from correctness (N,) bool; 1 without discordant pairs."""
    gained, lost = discordant(treatment, control)
    if gained + lost == 0:
        return 1.0
    return float(stats.binomtest(gained, gained + lost, 0.5).pvalue)


def cohens_g(treatment: np.ndarray, control: np.ndarray) -> float:
    """Cohen's g, McNemar's effect size: gained / (gained + lost) - 1/2; 0 without such pairs.

    In [-0.5, 0.5]; Cohen (1988) calls .05 small, .15 medium, .25 large.
    """
    gained, lost = discordant(treatment, control)
    return gained / (gained + lost) - 0.5 if gained + lost else 0.0


def paired_t(treatment: np.ndarray, control: np.ndarray) -> float:
    """Paired t-test's two-sided p over (N,) scores; 1 when all differences are 0."""
    differences = np.asarray(treatment, float) - np.asarray(control, float)
    if len(differences) < 2 or not differences.any():
        return 1.0
    if np.ptp(differences) == 0:
        return 0.0
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def wilcoxon(treatment: np.ndarray, control: np.ndarray) -> float:
    """Wilcoxon's signed-rank two-sided p over (N,) scores; 1 when all differences are 0."""
    differences = np.asarray(treatment, float) - np.asarray(control, float)
    return float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0


def cohens_dz(treatment: np.ndarray, control: np.ndarray) -> float | None:
    """Cohen's d_z of paired scores (N,): mean difference over its standard deviation (n - 1).

    None where the differences do not vary, so that no scale is there to measure them by.
    """
    differences = np.asarray(treatment, float) - np.asarray(control, float)
    if len(differences) < 2 or np.ptp(differences) < 1e-12:
        return 0.0 if not differences.any() else None
    return float(differences.mean() / differences.std(ddof=1))


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """Holm's step-down correction of several tests' p-values, never above 1."""
    corrected, running = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        running = max(running, (len(p_values) - rank) * p_values[name])
        corrected[name] = min(1.0, running)
    return {name: corrected[name] for name in p_values}


def wilson_interval(share: float, n: int, confidence: float) -> tuple[float, float]:
    """Wilson's score interval of a share seen in `n` independent cases; it never has width 0.

    For a mean of values in [0, 1] that are not all 0 or 1 it is wider than need be.
    Raises: ValueError without cases or for a share outside [0, 1].
    """
    if n < 1 or not 0 <= share <= 1:
        raise ValueError(f"found the share {share} of {n} cases, expected 0 to 1 of at least one")
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - reach), min(1.0, middle + reach)
