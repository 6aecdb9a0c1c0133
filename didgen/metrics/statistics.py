"""Is one arm better than another on the same test images? Intervals, the deciding test, verdicts.

Legend: S training seeds, N test images, L lesions (clusters), G groups, R resamples. Images of one
lesion are not independent, so the interval and the deciding test resample whole lesions.
"""

from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
MIN_SEEDS = 2
CHUNK = 1000
# Between t with the seeds' own degrees of freedom (0), too wide beside a normal part, and those of
# Welch and Satterthwaite (near 1), too narrow: simulated, this covers best.
WELCH_SHARE = 0.5
# Seeds may look alike by luck; but with all of the resamples' variance as the least, intervals
# cover more than 97 % where seeds differ by nothing but what single images bring in.
LEAST_SHARE = 0.5


@dataclass(frozen=True)
class Tally:
    """One arm's test results as the parts of its metric: a mean over groups of ratios of sums.

    numerators, denominators: (S, N, G). Mean Dice has one group, balanced accuracy and macro F1
    one a class. Raises: ValueError for other shapes or values that are not finite.
    """

    numerators: np.ndarray
    denominators: np.ndarray

    def __post_init__(self) -> None:
        shapes = self.numerators.shape, self.denominators.shape
        if len(shapes[0]) != 3 or shapes[0] != shapes[1] or not self.numerators.size:
            raise ValueError(
                f"found scores of shapes {shapes[0]} and {shapes[1]}, "
                "expected two equal ones, (seeds, images, groups)"
            )
        if not (np.isfinite(self.numerators).all() and np.isfinite(self.denominators).all()):
            raise ValueError("found scores that are not finite numbers; evaluate the models again")

    @property
    def per_seed(self) -> np.ndarray:
        """The metric of each seed (S,)."""
        return ratio_mean(self.numerators.sum(1), self.denominators.sum(1))


def ratio_mean(numerators: np.ndarray, denominators: np.ndarray) -> np.ndarray:
    """Mean over the last axis of numerator / denominator, leaving out those with nothing below."""
    present = denominators > 0
    ratios = np.divide(numerators, denominators, out=np.zeros_like(numerators), where=present)
    return ratios.sum(-1) / np.maximum(present.sum(-1), 1)


def mean_tally(scores: np.ndarray) -> Tally:
    """The mean of scores (S, N) over images, such as Dice or correctness (accuracy)."""
    scores = np.atleast_2d(np.asarray(scores, float))[..., None]
    return Tally(scores, np.ones_like(scores))


def recall_tally(predicted: np.ndarray, labels: np.ndarray) -> Tally:
    """Balanced accuracy: the mean over classes of recall. Shapes: (S, N) predicted, (N,) labels."""
    predicted = np.atleast_2d(predicted)
    own = (labels[:, None] == np.unique(labels)).astype(float)
    right = (predicted == labels).astype(float)[..., None]
    return Tally(right * own, np.broadcast_to(own, (len(predicted), *own.shape)).copy())


def f1_tally(predicted: np.ndarray, labels: np.ndarray) -> Tally:
    """Macro F1 over the classes of the labels: 2 TP / (2 TP + FP + FN). Shapes as `recall_tally`.

    An image adds 1 to the denominator of its true class and 1 to that of its predicted class.
    """
    classes = np.unique(labels)
    true = (labels[:, None] == classes).astype(float)
    seen = (np.atleast_2d(predicted)[..., None] == classes).astype(float)
    return Tally(2 * seen * true, seen + true)


@dataclass(frozen=True)
class Interval:
    """A difference (treatment minus control), its two-sided interval and the p that goes with it.

    `p` is 1 minus the confidence at which the interval's end would touch 0.
    """

    difference: float
    low: float
    high: float
    confidence: float
    p: float = 1.0


@dataclass(frozen=True)
class Paired:
    """Two arms tested on the same images after trainings with the same seeds.

    clusters: (N,) lesions. Raises: ValueError for shapes that do not fit.
    """

    treatment: Tally
    control: Tally
    clusters: np.ndarray

    def __post_init__(self) -> None:
        t, c = self.treatment.numerators.shape, self.control.numerators.shape
        if t != c:
            raise ValueError(f"found scores of shapes {t} and {c}, expected two equal ones")
        if len(self.clusters) != t[1]:
            raise ValueError(
                f"found {len(self.clusters)} clusters, expected {t[1]}, one for each image"
            )

    @property
    def per_seed(self) -> np.ndarray:
        """The difference of the metric for each seed (S,)."""
        return self.treatment.per_seed - self.control.per_seed

    def by_lesion(self) -> tuple[np.ndarray, np.ndarray]:
        """Numerators and denominators summed within lesions, each (2 arms, S, L, G)."""
        _, place = np.unique(self.clusters, return_inverse=True)
        sums = []
        for part in ("numerators", "denominators"):
            values = np.stack([getattr(self.treatment, part), getattr(self.control, part)])
            total = np.zeros((place.max() + 1, *values.shape[:2], values.shape[3]))
            np.add.at(total, place, np.moveaxis(values, 2, 0))
            sums.append(np.moveaxis(total, 0, 2))
        return sums[0], sums[1]


def clustered_bootstrap(
    data: Paired, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Percentile interval of the metric's difference: over lesions, widened for training chance.

    Each resample draws L lesions with replacement, all images of a lesion together, and takes the
    mean difference over seeds. To each is added, with both signs, a draw of t times `seed_error`:
    resampling the few seeds themselves would make the interval too narrow. What images on which
    the seeds disagree add is in both parts; it is taken out of the resamples (`disagreement`), as
    in two-way clustered errors (Cameron, Gelbach and Miller 2011): taken out of the seeds' part,
    little or nothing would be left to t where few seeds look alike by luck. The interval is never
    narrower than that of resamples with `LEAST_SHARE` of their variance. With one seed the chance
    of training cannot be known and is not covered.
    """
    rng = np.random.default_rng([seed, 2])
    sums, sizes = data.by_lesion()
    n_lesions = sums.shape[2]
    found = []
    for start in range(0, resamples, CHUNK):
        count = min(CHUNK, resamples - start)
        weights = rng.multinomial(n_lesions, np.full(n_lesions, 1 / n_lesions), count).astype(float)
        found.append(_metric(_weigh(weights, sums), _weigh(weights, sizes)))
    draws = np.concatenate(found)
    if len(data.per_seed) == 1:
        return _percentiles(data, [draws], confidence)
    resampled, chance = _with_seeds(data, draws, rng)
    both = np.concatenate([resampled + chance, resampled - chance])
    return _percentiles(data, [both, _narrowed(draws, LEAST_SHARE)], confidence)


def _percentiles(data: Paired, draws: list[np.ndarray], confidence: float) -> Interval:
    """The interval that holds the percentile intervals of all draws, with the largest p."""
    tail = 100 * (1 - confidence) / 2
    ends = np.array([np.percentile(drawn, [tail, 100 - tail]) for drawn in draws])
    # Rounding must not decide on which side of 0 a draw lies.
    beyond = [min((drawn <= 1e-12).sum(), (drawn >= -1e-12).sum()) for drawn in draws]
    p = max(2 * (1 + int(n)) / (1 + len(drawn)) for n, drawn in zip(beyond, draws, strict=True))
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    return Interval(float(data.per_seed.mean()), low, high, confidence, min(1.0, p))


def _narrowed(draws: np.ndarray, share: float) -> np.ndarray:
    """Draws with this share of their variance, around the same middle."""
    return draws.mean() + np.sqrt(share) * (draws - draws.mean())


def _with_seeds(
    data: Paired, draws: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Resamples (R,) without what the seeds' spread holds too, and draws of that spread (R,)."""
    of_seeds, of_all = seed_error(data), draws.var()
    of_images = max(0.0, of_all - disagreement(data) ** 2)
    kept = _narrowed(draws, of_images / of_all) if of_all > 0 else draws
    if of_seeds == 0:
        return kept, np.zeros_like(kept)
    freedom = (len(data.per_seed) - 1) * (1 + of_images / of_seeds**2) ** WELCH_SHARE
    return kept, of_seeds * rng.standard_t(freedom, len(draws))


def _weigh(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Weighted sums over lesions: (R, L) and (2, S, L, G) to (R, 2, S, G)."""
    return np.tensordot(weights, values, axes=(1, 2))


def _metric(sums: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The difference of the metric, averaged over seeds, from totals (R, 2, S, G)."""
    metric = ratio_mean(sums, sizes)
    return (metric[:, 0] - metric[:, 1]).mean(-1)


def seed_error(data: Paired) -> float:
    """Standard error of the mean difference over seeds, from their spread (two seeds or more)."""
    per_seed = data.per_seed
    return float(per_seed.std(ddof=1) / np.sqrt(len(per_seed)))


def disagreement(data: Paired) -> float:
    """Standard error of the mean difference that comes from lesions on which the seeds disagree.

    From the residuals of seeds by lesions, of each lesion's influence on the metric (two seeds or
    more). Both the spread over seeds and that over resamples of lesions hold it.
    """
    sums, sizes = data.by_lesion()
    totals = sizes.sum(2, keepdims=True)
    present = totals > 0
    ratios = np.divide(
        sums.sum(2, keepdims=True), totals, out=np.zeros(totals.shape), where=present
    )
    parts = np.divide(sums - ratios * sizes, totals, out=np.zeros(sums.shape), where=present)
    influence = parts.sum(-1) / present.sum(-1)
    difference = influence[0] - influence[1]
    n_seeds, n_lesions = difference.shape
    residuals = difference - difference.mean(0)
    residuals = residuals - residuals.mean(1, keepdims=True)
    if n_lesions < 2:
        return 0.0
    of_one_seed = (residuals**2).sum() / ((n_seeds - 1) * (n_lesions - 1)) * n_lesions
    return float(np.sqrt(of_one_seed / n_seeds))


def sign_flip_test(data: Paired, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """Two-sided p of the metric's difference: under the null each lesion's arms may be swapped.

    A Monte Carlo randomization test; the observed assignment counts as one of the R + 1, so p is
    never 0. All seeds of a lesion are swapped together, so they do not count as more images.
    """
    sums, sizes = data.by_lesion()
    observed = abs(float(data.per_seed.mean()))
    rng = np.random.default_rng([seed, 3])
    as_large = 0
    for start in range(0, resamples, CHUNK):
        count = min(CHUNK, resamples - start)
        signs = rng.choice([-1.0, 1.0], (count, sums.shape[2]))
        swapped = _metric(_swap(signs, sums), _swap(signs, sizes))
        # Rounding must not decide whether a tie counts.
        as_large += int((np.abs(swapped) >= observed - 1e-12).sum())
    return (1 + as_large) / (1 + resamples)


def _swap(signs: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Totals (R, 2, S, G) with the arms of each lesion swapped where its sign (R, L) is -1."""
    middle = values.sum((0, 2)) / 2
    moved = np.tensordot(signs, (values[0] - values[1]) / 2, axes=(1, 1))
    return np.stack([middle + moved, middle - moved], axis=1)


def deciding_p(interval: Interval, flipped: float, of_seeds: float | None = None) -> float:
    """The largest p: of the interval, of the sign-flip test, and of a paired t over seeds, if any.

    Of few seeds that look alike by luck the interval knows too little; Student's t allows for it.
    """
    return max(interval.p, flipped, of_seeds or 0.0)


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
    elif interval.low > 0 or interval.high < 0:
        if p >= alpha:
            text += " (the interval alone would say yes; the corrected p does not)"
        elif verdict == "no evidence":
            text += " (a difference, but within the margin)"
    return text
