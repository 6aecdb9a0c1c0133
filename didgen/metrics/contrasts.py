"""Differences between arms and their uncertainty: multi-reader multi-case analysis.

Several trainings (seeds) of each arm are scored on the same test images, as several readers score
the same cases in radiology. Seeds are the readers, lesions the cases, arms the modalities; each
arm has readers of its own, since a seed's number gives two arms nothing in common worth counting.
Where seeds share generators, a generator's seeds are one reader, by their mean.
Method: Obuchowski and Rockette 1995 with the degrees of freedom of Hillis 2007 (Stat Med 26:596)
and 2014 (Stat Med 33:330, readers nested within modalities), arms with variances of their own.

Legend: K arms, S trainings (seeds) of each, L lesions (independent groups of test images).
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize, stats

from didgen.metrics.tallies import Tally, ratio_mean

POWER = 0.8
# Beyond these no plan is proposed.
MOST_SEEDS, MOST_LESIONS = 1000, 1_000_000
CHUNK = 1000


@dataclass(frozen=True)
class Estimate:
    """A weighted sum of arms' metrics, such as a difference, and the parts of its variance.

    of_seeds: (K,) from the spread of each arm's seeds, interaction included; interaction: (K,) the
    part of it that comes from lesions on which an arm's seeds disagree; of_lesions: from lesions
    alone. With one seed the chance of training is unknown and counts as 0.
    """

    value: float
    of_seeds: np.ndarray
    interaction: np.ndarray
    of_lesions: float
    n_seeds: int
    n_lesions: int

    @property
    def error(self) -> float:
        """The standard error."""
        return math.sqrt(self.of_seeds.sum() + self.of_lesions)

    @property
    def freedom(self) -> float:
        """Hillis' degrees of freedom; never more than lesions would have alone."""
        squares = float((self.of_seeds**2).sum())
        if squares == 0:
            return self.n_lesions - 1
        return min(self.error**4 / squares * (self.n_seeds - 1), self.n_lesions - 1)

    def interval(self, confidence: float) -> tuple[float, float]:
        """The two-sided t interval."""
        reach = float(stats.t.ppf(0.5 + confidence / 2, self.freedom)) * self.error
        return self.value - reach, self.value + reach

    def p(self, margin: float = 0.0) -> float:
        """Two-sided p of a value that lies beyond the margin on the side where it was found.

        Below alpha exactly where the interval of confidence 1 - alpha lies beyond the margin.
        """
        return min(1.0, 2 * self._tail(abs(self.value) - margin))

    def p_equivalent(self, delta: float) -> float:
        """The larger p of two one-sided tests (Schuirmann 1987) that the value is within +-delta.

        Below alpha exactly where the interval of confidence 1 - 2 alpha lies within.
        """
        return self._tail(delta - abs(self.value))

    def _tail(self, distance: float) -> float:
        """P of Student's t beyond a distance from 0."""
        if self.error == 0:
            return 0.5 if distance == 0 else float(distance < 0)
        return float(stats.t.sf(distance / self.error, self.freedom))

    def detectable(self, alpha: float, power: float = POWER) -> float:
        """The smallest true value that a two-sided test at `alpha` finds with this power."""
        bound = float(stats.t.ppf(1 - alpha / 2, self.freedom))

        def missing(shift: float) -> float:
            return power - float(stats.nct.sf(bound, self.freedom, shift))

        return self.error * float(optimize.brentq(missing, 0, 10 + 3 * bound, xtol=1e-9))

    def planned(self, n_seeds: int, n_lesions: int) -> "Estimate":
        """The same estimate as expected with other numbers of seeds and lesions."""
        fewer = self.n_seeds / n_seeds, self.n_lesions / n_lesions
        both = np.minimum(self.interaction, self.of_seeds)
        return replace(
            self,
            of_seeds=(self.of_seeds - both) * fewer[0] + both * fewer[0] * fewer[1],
            interaction=both * fewer[0] * fewer[1],
            of_lesions=self.of_lesions * fewer[1],
            n_seeds=n_seeds,
            n_lesions=n_lesions,
        )

    def seeds_for(self, value: float, alpha: float, power: float = POWER) -> int | None:
        """How many seeds would find `value` on these lesions; None: no number would do."""
        return _least(
            lambda n: self.planned(n, self.n_lesions).detectable(alpha, power) <= value,
            self.n_seeds, MOST_SEEDS,
        )  # fmt: skip

    def lesions_for(self, value: float, alpha: float, power: float = POWER) -> int | None:
        """How many lesions would find `value` with these seeds; None: no number would do."""
        return _least(
            lambda n: self.planned(self.n_seeds, n).detectable(alpha, power) <= value,
            self.n_lesions, MOST_LESIONS,
        )  # fmt: skip


def _least(enough: Callable[[int], bool], first: int, last: int) -> int | None:
    """The least number from `first` to `last` that is enough, by bisection; None: not the last."""
    if not enough(last):
        return None
    while first < last:
        middle = (first + last) // 2
        first, last = (first, middle) if enough(middle) else (middle + 1, last)
    return first


def estimate(values: np.ndarray, influence: np.ndarray, weights: Sequence[float]) -> Estimate:
    """The weighted sum of arms' metrics with the parts of its variance.

    values: (K, S) the metric of each arm and seed; influence: (K, S, L) of each lesion on it, each
    row with sum 0; weights: (K,). The spread over an arm's seeds holds what lesions on which they
    disagree bring in (the interaction); it is therefore taken out of the lesions' part.
    Raises: ValueError for fewer than two lesions.
    """
    n_seeds, n_lesions = influence.shape[1:]
    if n_lesions < 2:
        raise ValueError(
            f"found {n_lesions} lesion or patient among the test images, expected at least two "
            "independent ones"
        )
    factors = np.asarray(weights, float)
    correction = n_lesions / (n_lesions - 1)
    means = influence.mean(1)
    lesions = correction * float((np.tensordot(factors, means, 1) ** 2).sum())
    if n_seeds == 1:
        none = np.zeros(len(factors))
        return Estimate(float(factors @ values[:, 0]), none, none, lesions, n_seeds, n_lesions)
    residuals = ((influence - means[:, None]) ** 2).sum((1, 2)) / (n_seeds - 1)
    interaction = correction * factors**2 * residuals / n_seeds
    return Estimate(
        value=float(factors @ values.mean(1)),
        of_seeds=factors**2 * values.var(1, ddof=1) / n_seeds,
        interaction=interaction,
        of_lesions=max(0.0, lesions - float(interaction.sum())),
        n_seeds=n_seeds,
        n_lesions=n_lesions,
    )


def contrast(tallies: Sequence[Tally], weights: Sequence[float], clusters: np.ndarray) -> Estimate:
    """The weighted sum of arms' metrics on the same test images; clusters (N,) are the lesions.

    Raises: ValueError for tallies of other shapes or too few lesions.
    """
    shapes = {tally.numerators.shape[:2] for tally in tallies}
    if len(shapes) != 1:
        raise ValueError(
            f"found scores of (seeds, images) {sorted(shapes)}, expected the same for every arm"
        )
    lesions = [tally.by_lesion(clusters) for tally in tallies]
    return estimate(
        np.stack([tally.by_reader(tally.per_seed) for tally in lesions]),
        np.stack([tally.by_reader(tally.influence) for tally in lesions]),
        weights,
    )


def difference(treatment: Tally, control: Tally, clusters: np.ndarray) -> Estimate:
    """Treatment minus control, seeds unpaired."""
    return contrast([treatment, control], [1, -1], clusters)


def false_alarms(
    tally: Tally, clusters: np.ndarray, splits: int, confidence: float, seed: int
) -> int:
    """How many of `splits` random halvings of one arm's seeds differ by the test (an A/A check).

    Both halves are the same arm, so that every alarm is false. Raises: ValueError for fewer than
    four seeds, or more splits than there are.
    """
    n_seeds = len(tally.per_seed)
    half = n_seeds // 2
    # The first seed always in the first half where both are equal: the others are the same pairs.
    every = [chosen for chosen in itertools.combinations(range(2 * half), half) if chosen[0] == 0]
    if half < 2 or splits > len(every):
        raise ValueError(
            f"found {n_seeds} seeds and {splits} splits, expected at least four seeds, and at most "
            f"{len(every)} splits of {2 * half}"
        )
    alarms = 0
    for place in np.random.default_rng([seed, 12]).permutation(len(every))[:splits]:
        first = np.array(every[place])
        second = np.setdiff1d(np.arange(2 * half), first)
        result = difference(tally.of_seeds(first), tally.of_seeds(second), clusters)
        alarms += result.p() < 1 - confidence
    return int(alarms)


def sensitivity(
    treatment: Tally, control: Tally, clusters: np.ndarray, resamples: int, seed: int
) -> dict[str, float]:
    """Two-sided p of the same difference in three other ways, none of which decides.

    Pooled: one variance for both arms' seeds. Paired: seeds of one number as pairs (the factorial
    design of Hillis 2007). Randomisation: seeds held fixed.
    """
    p_values = {"randomisation over lesions": randomisation_p(
        treatment, control, clusters, resamples, seed
    )}  # fmt: skip
    arms = [tally.by_lesion(clusters) for tally in (treatment, control)]
    unpaired = difference(treatment, control, clusters)
    if unpaired.n_seeds > 1:
        # Of two equal parts the degrees of freedom are those of both arms together.
        pooled = replace(unpaired, of_seeds=np.full(2, unpaired.of_seeds.mean()))
        paired = estimate(
            arms[0].by_reader(arms[0].per_seed - arms[1].per_seed)[None],
            arms[0].by_reader(arms[0].influence - arms[1].influence)[None],
            [1],
        )
        p_values |= {"variance pooled over arms": pooled.p(), "paired by seed": paired.p()}
    return p_values


def randomisation_p(
    treatment: Tally, control: Tally, clusters: np.ndarray, resamples: int, seed: int
) -> float:
    """Two-sided p of the difference: under the null each lesion's arms may be swapped.

    A Monte Carlo randomisation test; the observed assignment counts as one of the R + 1, so p is
    never 0. All seeds of a lesion are swapped together: it ignores the chance of training.
    """
    arms = [tally.by_lesion(clusters) for tally in (treatment, control)]
    observed = abs(float(arms[0].per_seed.mean() - arms[1].per_seed.mean()))
    rng = np.random.default_rng([seed, 3])
    parts = [
        np.stack([getattr(arm, name) for arm in arms]) for name in ("numerators", "denominators")
    ]
    as_large = 0
    for start in range(0, resamples, CHUNK):
        count = min(CHUNK, resamples - start)
        signs = rng.choice([-1.0, 1.0], (count, parts[0].shape[2]))
        metric = ratio_mean(*(_swapped(signs, part) for part in parts))
        # Rounding must not decide whether a tie counts.
        differences = (metric[:, 0] - metric[:, 1]).mean(-1)
        as_large += int((np.abs(differences) >= observed - 1e-12).sum())
    return (1 + as_large) / (1 + resamples)


def _swapped(signs: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Totals (R, 2, S, G) of (2, S, L, G) with a lesion's arms swapped where its sign is -1."""
    middle = values.sum((0, 2)) / 2
    moved = np.tensordot(signs, (values[0] - values[1]) / 2, axes=(1, 1))
    return np.stack([middle + moved, middle - moved], axis=1)
