"""Differences between arms: a published example, textbook tests, coverage, false alarms, power."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import CompareMeans

from didgen.metrics.contrasts import (
    Estimate,
    contrast,
    difference,
    estimate,
    false_alarms,
    randomisation_p,
    sensitivity,
)
from didgen.metrics.tallies import Tally, mean_tally, recall_tally

# Van Dyke et al. 1993: empirical AUC of five readers, two modalities and 114 cases, and their
# covariances by the jackknife, as RJafroc prints them (dataset02) and Hillis 2007 analyses them.
READERS = np.array([
    [0.91964573, 0.85877617, 0.90386473, 0.97310789, 0.82979066],
    [0.94782609, 0.90531401, 0.92173913, 0.99935588, 0.92995169],
])  # fmt: skip
VAR, COV2 = (0.00101410277, 0.00059047376), (0.00048396180, 0.00020418785)
COV1, COV3 = 0.00034661371, 0.00023902837


def van_dyke() -> np.ndarray:
    """Influences (2, 5, 114) whose sums of products are the published covariances."""
    wanted = np.full((2, 5, 2, 5), COV3)
    for arm in range(2):
        wanted[arm, :, arm] = COV2[arm]
        for reader in range(5):
            wanted[arm, reader, 1 - arm, reader] = COV1
            wanted[arm, reader, arm, reader] = VAR[arm]
    values, vectors = np.linalg.eigh(wanted.reshape(10, 10))
    assert values.min() > 0
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(114, 10))
    basis = np.linalg.qr(columns - columns.mean(0))[0]
    root = (vectors * np.sqrt(values * 113 / 114)) @ basis.T
    return root.reshape(2, 5, 114)


def test_readers_in_pairs_give_the_published_interval_of_van_dyke():
    """The factorial design is the same analysis of one arm, the differences of paired readers."""
    influence = van_dyke()
    found = estimate(READERS[:1] - READERS[1:], influence[:1] - influence[1:], [1])
    assert found.value == pytest.approx(-0.043800322, abs=1e-8)
    assert (found.value / found.error) ** 2 == pytest.approx(4.4563187, rel=1e-6)
    assert found.freedom == pytest.approx(15.259675, rel=1e-6)
    assert found.p() == pytest.approx(0.051665686, rel=1e-6)
    assert found.interval(0.95) == pytest.approx((-0.087959499, 0.00035885444), abs=1e-8)


def test_unpaired_readers_follow_the_nested_design_of_hillis_2014():
    found = estimate(READERS, van_dyke(), [1, -1])
    mean_squares = (0.0030826287, 0.0013046019)  # of each modality, as published
    assert found.of_seeds == pytest.approx(np.array(mean_squares) / 5, rel=1e-6)
    # Cov3 over all 25 pairs of readers, five of which RJafroc counts as Cov1.
    cov3 = (20 * COV3 + 5 * COV1) / 25
    assert found.of_lesions == pytest.approx(sum(COV2) - 2 * cov3, rel=1e-6)
    variance = sum(mean_squares) / 5 + sum(COV2) - 2 * cov3
    assert found.error**2 == pytest.approx(variance, rel=1e-6)
    freedom = variance**2 / sum((m / 5) ** 2 / 4 for m in mean_squares)
    assert found.freedom == pytest.approx(freedom, rel=1e-6)


def normal(shape: tuple[int, ...], seed: int, scale: float = 0.05) -> Tally:
    return mean_tally(np.random.default_rng(seed).normal(0.8, scale, shape))


def test_without_lesions_it_is_welchs_test():
    """All images of a seed alike: only the seeds' spread is left."""
    seeds = np.random.default_rng(0).normal(0.8, [[0.02], [0.05]], (2, 4))
    arms = [mean_tally(np.repeat(own[:, None], 50, 1)) for own in seeds]
    found = difference(*arms, np.arange(50))
    expected = CompareMeans.from_data(*seeds)
    assert found.p() == pytest.approx(expected.ttest_ind(usevar="unequal")[1])
    low, high = expected.tconfint_diff(usevar="unequal")
    assert found.interval(0.95) == pytest.approx((low, high))
    pooled = sensitivity(*arms, np.arange(50), 100, 0)["variance pooled over arms"]
    assert pooled == pytest.approx(expected.ttest_ind(usevar="pooled")[1])
    paired = sensitivity(*arms, np.arange(50), 100, 0)["paired by seed"]
    assert paired == pytest.approx(stats.ttest_rel(*seeds).pvalue)


def test_seeds_that_agree_leave_the_paired_t_over_lesions():
    scores = np.random.default_rng(0).normal(0.8, 0.1, (2, 60))
    arms = [mean_tally(np.tile(own, (3, 1))) for own in scores]
    found = difference(*arms, np.arange(60))
    assert found.p() == pytest.approx(stats.ttest_rel(*scores).pvalue)


def test_what_seeds_disagree_on_is_counted_once():
    """Every image is chance of its own in every training: both parts hold it whole."""
    total = [
        difference(normal((5, 400), 2 * k), normal((5, 400), 2 * k + 1), np.arange(400)).error ** 2
        for k in range(300)
    ]
    # Its true variance: two arms, 5 seeds and 400 images of variance 0.05^2.
    truth = 2 * 0.05**2 / 2000
    # The lesions' part is never below 0, which keeps a little of its noise.
    assert 0.95 * truth < np.mean(total) < 1.25 * truth


def test_swapping_the_arms_flips_the_sign_and_the_order_of_seeds_says_nothing():
    first, second = normal((3, 60), 0), normal((3, 60), 1)
    lesions = np.repeat(np.arange(30), 2)
    there, back = difference(first, second, lesions), difference(second, first, lesions)
    assert back.value == pytest.approx(-there.value)
    assert back.interval(0.9)[0] == pytest.approx(-there.interval(0.9)[1])
    other = difference(first.of_seeds([2, 0, 1]), second, lesions)
    assert other.interval(0.9) == pytest.approx(there.interval(0.9))
    order = np.random.default_rng(5).permutation(60)
    moved = [Tally(arm.numerators[:, order], arm.denominators[:, order]) for arm in (first, second)]
    assert difference(*moved, lesions[order]).interval(0.9) == pytest.approx(there.interval(0.9))


def test_images_of_one_lesion_are_not_counted_as_independent():
    per_lesion = np.random.default_rng(0).normal(0.05, 0.2, (2, 1, 20)) + np.zeros((2, 3, 20))
    once = [mean_tally(own) for own in per_lesion]
    often = [mean_tally(np.repeat(own, 10, axis=1)) for own in per_lesion]
    alone = difference(*once, np.arange(20))
    copied = difference(*often, np.repeat(np.arange(20), 10))
    assert copied.interval(0.95) == pytest.approx(alone.interval(0.95))


def test_a_difference_without_any_spread_is_certain():
    arms = mean_tally(np.full((2, 40), 0.75)), mean_tally(np.full((2, 40), 0.5))
    found = difference(*arms, np.arange(40))
    assert (found.value, *found.interval(0.95)) == (0.25, 0.25, 0.25)
    assert found.p() == 0 and found.p(margin=0.3) == 1 and found.p_equivalent(0.3) == 0
    same = difference(arms[0], arms[0], np.arange(40))
    assert same.p() == 1 and same.p_equivalent(0.01) == 0 and same.detectable(0.05) == 0


@pytest.mark.parametrize("margin", [0.0, 0.02])
def test_p_and_the_ends_of_intervals_agree(margin):
    found = Estimate(0.05, np.array([1e-4, 2e-4]), np.zeros(2), 1e-4, 3, 300)
    p = found.p(margin)
    assert 0 < p < 1
    assert found.interval(1 - p)[0] == pytest.approx(margin)
    within = found.p_equivalent(0.08)
    assert found.interval(1 - 2 * within)[1] == pytest.approx(0.08)
    down = Estimate(-0.05, found.of_seeds, np.zeros(2), 1e-4, 3, 300)
    assert (down.p(margin), down.p_equivalent(0.08)) == pytest.approx((p, within))


def test_the_detectable_effect_is_that_of_statsmodels():
    """One arm without lesions is Student's one-sample test."""
    found = Estimate(0.0, np.array([0.01**2 / 8]), np.zeros(1), 0.0, 8, 10**6)
    expected = TTestPower().solve_power(nobs=8, alpha=0.025, power=0.8, alternative="larger")
    assert found.detectable(0.05) == pytest.approx(0.01 * expected, rel=1e-5)


def test_plans_find_what_they_promise_and_not_with_one_less():
    found = Estimate(0.0, np.array([4e-5, 5e-5]), np.array([1e-5, 1e-5]), 2e-5, 3, 300)
    wanted = found.detectable(0.05) / 2
    seeds, lesions = found.seeds_for(wanted, 0.05), found.lesions_for(2 * wanted * 0.95, 0.05)
    for more, less in (((seeds, 300), (seeds - 1, 300)), ((3, lesions), (3, lesions - 1))):
        goal = wanted if more[0] == seeds else 2 * wanted * 0.95
        assert found.planned(*more).detectable(0.05) <= goal
        assert found.planned(*less).detectable(0.05) > goal
    assert found.planned(3, 300).error == pytest.approx(found.error)
    # Seeds alone cannot go below what the lesions leave, nor lesions below the seeds.
    assert found.seeds_for(1.9 * np.sqrt(2e-5), 0.05) is None
    assert found.lesions_for(wanted, 0.05) is None
    # Trainings on other lesions: the interaction shrinks with both.
    assert found.planned(6, 600).interaction == pytest.approx([2.5e-6, 2.5e-6])


def test_one_seed_tells_of_lesions_alone():
    scores = np.random.default_rng(0).normal(0.8, 0.1, (2, 60))
    found = difference(mean_tally(scores[0]), mean_tally(scores[1]), np.arange(60))
    assert found.p() == pytest.approx(stats.ttest_rel(*scores).pvalue)
    assert found.n_seeds == 1 and set(sensitivity(
        mean_tally(scores[0]), mean_tally(scores[1]), np.arange(60), 100, 0
    )) == {"randomisation over lesions"}  # fmt: skip


def test_arms_and_lesions_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="the same for every arm"):
        contrast([normal((2, 4), 0), normal((3, 4), 0)], [1, -1], np.arange(4))
    with pytest.raises(ValueError, match="at least two"):
        difference(normal((2, 4), 0), normal((2, 4), 1), np.zeros(4))


def test_randomisation_by_hand():
    # Three lesions, all +1: 2 of the 8 sign patterns reach |sum| = 3.
    arms = mean_tally([1, 1, 1]), mean_tally([0, 0, 0])
    assert randomisation_p(*arms, np.arange(3), 20_000, 0) == pytest.approx(0.25, abs=0.015)
    same = mean_tally([0.5] * 9)
    assert randomisation_p(same, same, np.arange(9), 100, 0) == 1


def test_halves_of_one_arm_seldom_differ():
    """Ten seeds, 100 of the 126 halvings; the seeds of another arm in their place do differ."""
    rng = np.random.default_rng(0)
    lesions = rng.normal(0.8, 0.1, 200)
    seeds = lesions + rng.normal(0, 0.02, (10, 1)) + rng.normal(0, 0.05, (10, 200))
    assert false_alarms(mean_tally(seeds), np.arange(200), 100, 0.95, 0) <= 5
    apart = false_alarms(mean_tally(seeds), np.arange(200), 126, 0.05, 0)
    assert apart > 100  # nearly every halving differs at a level of 95 %
    with pytest.raises(ValueError, match="found 10 seeds and 127 splits.*at most 126 splits"):
        false_alarms(mean_tally(seeds), np.arange(200), 127, 0.95, 0)
    with pytest.raises(ValueError, match="at least four seeds"):
        false_alarms(mean_tally(seeds[:3]), np.arange(200), 1, 0.95, 0)


# Simulations. Their bounds are 3.3 standard errors of a share of TRIALS, 0.1 % beyond in both
# directions together, around what the method promises.
TRIALS = 2000
LESIONS = 300


def simulated(
    rng: np.random.Generator, n_seeds: int, seed_sd: float | tuple[float, float], of_images: float,
    interaction: float, effect: float = 0.0,
) -> Estimate:  # fmt: skip
    """A difference of means with normal parts: `of_images` is the images' standard error of the
    difference, `interaction` that of one training of one arm."""
    scores = rng.normal(0, of_images * np.sqrt(LESIONS / 2), (2, 1, LESIONS))
    scores = scores + rng.normal(0, interaction * np.sqrt(LESIONS), (2, n_seeds, LESIONS))
    spread = np.broadcast_to(seed_sd, 2)[:, None, None]
    scores += rng.normal(0, 1, (2, n_seeds, 1)) * spread + np.array([effect, 0])[:, None, None]
    values = scores.mean(2)
    return estimate(values, (scores - values[..., None]) / LESIONS, [1, -1])


def bounds(share: float, trials: int = TRIALS) -> tuple[float, float]:
    """Where an observed share must lie."""
    reach = 3.3 * np.sqrt(share * (1 - share) / trials)
    return share - reach, share + reach


@pytest.mark.slow
@pytest.mark.parametrize("n_seeds", [2, 3, 5])
@pytest.mark.parametrize("seed_sd", [(0.0, 0.0), (1.0, 1.0), (3.0, 3.0), (2.0, 1.0), (6.0, 3.0)])
@pytest.mark.parametrize("interaction", [0.0, 1.0, 3.0])
def test_the_interval_covers_the_truth_as_often_as_it_says(n_seeds, seed_sd, interaction):
    """Standard errors in units of the images'; the last two double one arm's spread."""
    rng = np.random.default_rng([n_seeds, *map(int, seed_sd), int(interaction)])
    covered = 0
    for _ in range(TRIALS):
        low, high = simulated(rng, n_seeds, seed_sd, 1.0, interaction).interval(0.95)
        covered += low <= 0 <= high
    # Two seeds leave so few degrees of freedom that it may fall two points short.
    low = bounds(0.935)[0] if n_seeds == 2 else bounds(0.95)[0]
    assert low <= covered / TRIALS <= bounds(0.95)[1]


# Images of each class of ISIC 2018's Task 3 test set.
LABELS = np.repeat(np.arange(7), (171, 909, 93, 43, 217, 44, 35))


def six_arms(
    rng: np.random.Generator, n_seeds: int, spread: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which images six equally good arms get right (6, S, N), their balanced accuracy and the
    influence of each image. An image is easy or hard for every arm, and for each arm a little."""
    ease = rng.standard_normal(len(LABELS), np.float32) + 0.7
    own = 0.5 * rng.standard_normal((6, 1, len(LABELS)), np.float32)
    noise = rng.standard_normal((6, n_seeds, len(LABELS)), np.float32)
    skill = rng.normal(0, spread, (6, n_seeds, 7)).astype(np.float32)[..., LABELS]
    right = (ease + own + skill + noise > 0).astype(float)
    counts = np.bincount(LABELS)
    recall = np.add.reduceat(right, np.cumsum(counts) - counts, axis=-1) / counts
    influence = (right - recall[..., LABELS]) / counts[LABELS] / 7
    return right, recall.mean(-1), influence


@pytest.mark.slow
@pytest.mark.parametrize(("n_seeds", "spread"), [(3, 0.1), (3, 0.4), (5, 0.1), (5, 0.4)])
def test_balanced_accuracy_covers_and_a_tie_with_five_controls_is_seldom_called_help(
    n_seeds, spread
):
    rng = np.random.default_rng([n_seeds, int(10 * spread)])
    right, values, influence = six_arms(rng, n_seeds, spread)
    for arm in range(2):
        tally = recall_tally(np.where(right[arm], LABELS, -1), LABELS)
        assert tally.per_seed == pytest.approx(values[arm])
        assert tally.influence == pytest.approx(influence[arm])
    covered = primary = every = 0
    for _ in range(TRIALS):
        _, values, influence = six_arms(rng, n_seeds, spread)
        found = [estimate(values[[0, k]], influence[[0, k]], [1, -1]) for k in range(1, 6)]
        low, high = found[0].interval(0.95)
        covered += low <= 0 <= high
        primary += low > 0
        every += all(each.interval(0.95)[0] > 0 for each in found)
    # Where lesions add little, their part, never below 0, makes intervals a little too wide.
    assert bounds(0.95)[0] <= covered / TRIALS <= bounds(0.96)[1]
    assert primary / TRIALS <= bounds(0.025)[1]
    assert every / TRIALS <= 0.025


def true_estimate(n_seeds: int, seed_sd: float, of_images: float) -> Estimate:
    """The estimate that `simulated` draws around, with its true variances."""
    return Estimate(
        0.0, np.full(2, seed_sd**2 / n_seeds), np.zeros(2), of_images**2, n_seeds, LESIONS
    )


# Spreads of balanced accuracy and of Dice as measured on real runs; the smallest effect that is
# found with 80 % power. Few seeds estimate their own spread badly, which costs some power.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed_sd", "of_images", "n_seeds", "effect", "power"),
    [
        (0.015, 0.010, 3, 0.049, 0.76), (0.015, 0.010, 5, 0.040, 0.80),
        (0.015, 0.010, 10, 0.034, 0.80), (0.004, 0.0025, 3, 0.0128, 0.76),
        (0.004, 0.0025, 5, 0.0103, 0.80), (0.004, 0.0025, 10, 0.0087, 0.80),
    ],
)  # fmt: skip
def test_power_is_what_a_run_says_it_could_have_found(seed_sd, of_images, n_seeds, effect, power):
    told = true_estimate(n_seeds, seed_sd, of_images).detectable(0.05)
    assert told == pytest.approx(effect, rel=0.01)
    rng = np.random.default_rng([n_seeds, 1])
    found = [simulated(rng, n_seeds, seed_sd, of_images, 0.0, told) for _ in range(TRIALS)]
    share = np.mean([each.interval(0.95)[0] > 0 for each in found])
    assert bounds(power)[0] <= share <= bounds(power)[1]
    # What runs say of themselves is the same on average.
    assert np.median([each.detectable(0.05) for each in found]) == pytest.approx(told, rel=0.06)


@pytest.mark.slow
@pytest.mark.parametrize(("n_seeds", "declared"), [(3, 0.45), (5, 0.73), (10, 0.89)])
def test_equivalence_of_dice_is_declared_as_often_as_it_can_be_and_seldom_wrongly(
    n_seeds, declared
):
    rng, delta = np.random.default_rng([n_seeds, 2]), 0.01
    alike, apart = (
        np.mean([
            simulated(rng, n_seeds, 0.004, 0.0025, 0.0, effect).p_equivalent(delta) < 0.05
            for _ in range(TRIALS)
        ])
        for effect in (0.0, delta)
    )  # fmt: skip
    assert bounds(declared)[0] <= alike <= bounds(declared)[1]
    assert apart <= bounds(0.05)[1]
