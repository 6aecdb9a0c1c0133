"""Tests and intervals: hand-worked p-values, invariances, coverage and false alarms."""

import numpy as np
import pytest
from scipy import optimize, stats
from sklearn.metrics import balanced_accuracy_score, f1_score

from didgen.metrics.significance import paired_t
from didgen.metrics.statistics import (
    Interval,
    Paired,
    Tally,
    clustered_bootstrap,
    decide,
    deciding_p,
    disagreement,
    f1_tally,
    mean_tally,
    recall_tally,
    seed_error,
    sentence,
    sign_flip_test,
)


def paired(treatment, control, clusters=None) -> Paired:
    treatment, control = mean_tally(treatment), mean_tally(control)
    n = treatment.numerators.shape[1]
    return Paired(treatment, control, np.arange(n) if clusters is None else np.asarray(clusters))


def of_training(data: Paired) -> float:
    """Standard error over seeds without what test images bring in."""
    return float(np.sqrt(max(0.0, seed_error(data) ** 2 - disagreement(data) ** 2)))


def noisy(seed: int = 0, shift: float = 0.0) -> Paired:
    rng = np.random.default_rng(seed)
    control = rng.normal(0.8, 0.05, (3, 60))
    treatment = control + shift + rng.normal(0, 0.03, (3, 60))
    return paired(treatment, control, np.repeat(np.arange(30), 2))


def test_a_constant_difference_has_an_interval_without_width():
    control = np.random.default_rng(0).random((2, 40))
    found = clustered_bootstrap(paired(control + 0.25, control, np.repeat(range(10), 4)))
    assert (found.difference, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25))


def test_swapping_the_arms_flips_the_sign():
    data = noisy(shift=0.02)
    swapped = Paired(data.control, data.treatment, data.clusters)
    there, back = clustered_bootstrap(data), clustered_bootstrap(swapped)
    assert back.difference == pytest.approx(-there.difference)
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low))
    assert sign_flip_test(data) == sign_flip_test(swapped)


def test_tallies_are_the_metrics_of_sklearn():
    rng = np.random.default_rng(0)
    labels = rng.choice(["MEL", "NV", "BCC"], 80, p=[0.2, 0.7, 0.1])
    predicted = np.where(rng.random((3, 80)) < 0.6, labels, rng.choice(["MEL", "NV"], (3, 80)))
    recall, f1 = recall_tally(predicted, labels), f1_tally(predicted, labels)
    for k in range(3):
        expected = balanced_accuracy_score(labels, predicted[k])
        assert recall.per_seed[k] == pytest.approx(expected)
        assert f1.per_seed[k] == pytest.approx(f1_score(labels, predicted[k], average="macro"))


def test_balanced_accuracy_by_hand():
    # Class a: 4 images, treatment right on 3, control on 1; class b: one image, both right.
    labels = np.array(["a", "a", "a", "a", "b"])
    treatment = recall_tally(np.array(["a", "a", "a", "b", "b"]), labels)
    control = recall_tally(np.array(["a", "b", "b", "b", "b"]), labels)
    found = clustered_bootstrap(Paired(treatment, control, np.arange(5)), resamples=200)
    assert found.difference == pytest.approx((2 / 4 + 0) / 2)
    assert treatment.per_seed == pytest.approx([(3 / 4 + 1) / 2])


def test_the_bootstrap_of_macro_f1_matches_one_written_out():
    rng = np.random.default_rng(0)
    labels = rng.choice(["a", "b"], 60)
    first, second = (np.where(rng.random(60) < q, labels, "a") for q in (0.8, 0.6))
    data = Paired(f1_tally(first, labels), f1_tally(second, labels), np.arange(60))
    found = clustered_bootstrap(data, resamples=2000)
    own = []
    for _ in range(2000):
        rows = rng.integers(0, 60, 60)
        scores = [f1_score(labels[rows], p[rows], average="macro") for p in (first, second)]
        own.append(scores[0] - scores[1])
    assert (found.low, found.high) == pytest.approx(np.percentile(own, [2.5, 97.5]), abs=0.02)


def test_what_seeds_disagree_on_is_not_counted_twice():
    """The spread of seeds holds chance on single images, which resampling lesions covers."""
    rng = np.random.default_rng(0)
    images_only = rng.normal(0, 0.3, (5, 400))
    shifted = images_only + np.array([-0.1, -0.05, 0, 0.05, 0.1])[:, None]
    alone, with_shift = (paired(x, np.zeros_like(x)) for x in (images_only, shifted))
    naive = alone.per_seed.std(ddof=1) / np.sqrt(5)
    assert seed_error(alone) == pytest.approx(naive)
    assert of_training(alone) < 0.75 * naive
    expected = np.std([-0.1, -0.05, 0, 0.05, 0.1], ddof=1) / np.sqrt(5)
    assert of_training(with_shift) == pytest.approx(expected, rel=0.15)
    # What is left is Student's interval over the seeds; counted twice, it would be a quarter wider.
    found = clustered_bootstrap(alone)
    wanted = 2 * stats.t.ppf(0.975, 4) * naive
    assert found.high - found.low == pytest.approx(wanted, rel=0.1)


def test_disagreement_by_hand():
    # Each lesion's influence is half its difference from the seed's mean: 0.1 / 2 = 0.05,
    # all of it unlike the other seed's. One seed's variance: 4 * 0.05^2 / (1 * 1) * 2 = 0.02.
    opposed = np.array([[0.1, -0.1], [-0.1, 0.1]])
    assert disagreement(paired(opposed, 0 * opposed)) == pytest.approx(np.sqrt(0.02 / 2))
    agreed = np.array([[0.3, -0.1], [0.2, -0.2]])
    assert disagreement(paired(agreed, 0 * agreed)) == pytest.approx(0, abs=1e-12)


def test_the_width_of_an_interval_over_two_seeds_by_hand():
    """Images bring three times the seeds' variance: t has sqrt(1 + 3) = 2 degrees of freedom."""
    spread = 0.01
    of_images = np.where(np.arange(400) % 2, 1, -1) * spread * np.sqrt(3 * 400)
    scores = of_images + spread * np.array([[1.0], [-1.0]])
    found = clustered_bootstrap(paired(scores, 0 * scores), resamples=50_000)
    grid = np.linspace(-2000, 2000, 400_001)
    weights = stats.t.pdf(grid, 2) * (grid[1] - grid[0])

    def beyond(half_width: float) -> float:
        return float(weights @ stats.norm.sf((half_width - spread * grid) / spread / np.sqrt(3)))

    wanted = optimize.brentq(lambda half: beyond(half) - 0.025, spread, 50 * spread)
    assert (found.low, found.high) == pytest.approx((-wanted, wanted), rel=0.03)


def test_seeds_that_look_alike_by_luck_do_not_make_the_interval_sure():
    """Per-seed differences are equal, so that their spread says nothing of what images bring in."""
    effect = np.random.default_rng(0).normal(0, 0.3, (3, 200))
    effect -= effect.mean(1, keepdims=True)
    zero = np.zeros_like(effect)
    found = clustered_bootstrap(paired(effect, zero))
    of_images = clustered_bootstrap(paired(effect.mean(0), zero[0]))
    share = (found.high - found.low) / (of_images.high - of_images.low)
    assert share == pytest.approx(np.sqrt(0.5), rel=0.01)


def test_the_p_of_the_interval_agrees_with_its_ends():
    data = noisy(shift=0.003)
    found = clustered_bootstrap(data)
    at_p = clustered_bootstrap(data, confidence=1 - found.p)
    assert 0 < found.p < 1
    assert min(abs(at_p.low), abs(at_p.high)) < 2e-4


def test_the_larger_p_decides():
    interval = Interval(0.1, 0.05, 0.15, 0.95, p=0.004)
    assert deciding_p(interval, 0.02) == 0.02
    assert deciding_p(interval, 0.001) == 0.004
    assert deciding_p(interval, 0.001, of_seeds=0.055) == 0.055
    assert deciding_p(interval, 0.02, of_seeds=0.001) == 0.02


def test_a_difference_that_seeds_do_not_bear_out_is_no_evidence():
    """Five trainings of an arm that was a copy of its control; images alone would be sure."""
    found = np.array([0.050, 0.042, 0.000, 0.029, 0.008])
    rng = np.random.default_rng(2)
    scores = rng.normal(0, 0.3, (5, 300))
    scores += (found - scores.mean(1))[:, None]
    interval = clustered_bootstrap(paired(scores, np.zeros_like(scores)))
    p = deciding_p(interval, 0.001, paired_t(found, np.zeros(5)))
    # Mean 0.0258, standard error 0.00959, four degrees of freedom: t = 2.689.
    assert p == pytest.approx(0.0547, abs=1e-4)
    assert interval.low > 0 and interval.p < 0.05
    assert decide(interval, p, n_seeds=5) == "no evidence"


def test_images_of_one_lesion_are_not_counted_as_independent():
    rng = np.random.default_rng(0)
    per_lesion = rng.normal(0.05, 0.2, 20)
    control = np.zeros(200)
    treatment = np.repeat(per_lesion, 10)
    lesions = np.repeat(np.arange(20), 10)
    by_lesion = paired(treatment, control, lesions)
    by_image = paired(treatment, control)
    one, ten = clustered_bootstrap(by_image), clustered_bootstrap(by_lesion)
    # Ten copies of each lesion: the honest interval is about sqrt(10) wider.
    assert 2.5 < (ten.high - ten.low) / (one.high - one.low) < 4
    assert sign_flip_test(by_lesion) > sign_flip_test(by_image)


def test_seeds_that_disagree_widen_the_interval():
    control = np.zeros((3, 100))
    treatment = np.repeat([[0.0], [0.05], [0.1]], 100, axis=1)
    found = clustered_bootstrap(paired(treatment, control))
    assert found.difference == pytest.approx(0.05)
    assert found.low < 0.01
    assert found.high > 0.09


def test_sign_flip_by_hand():
    # Three lesions, all +1: 2 of the 8 sign patterns reach |sum| = 3.
    p = sign_flip_test(paired([1, 1, 1], [0, 0, 0]), resamples=20_000)
    assert p == pytest.approx(0.25, abs=0.015)
    assert sign_flip_test(paired([0.5] * 9, [0.5] * 9)) == 1


def test_the_same_seed_gives_the_same_numbers_and_the_order_of_images_none_other():
    data = noisy()
    assert clustered_bootstrap(data) == clustered_bootstrap(data)
    order = np.random.default_rng(5).permutation(60)
    arms = [
        Tally(arm.numerators[:, order], arm.denominators[:, order])
        for arm in (data.treatment, data.control)
    ]
    shuffled = Paired(*arms, data.clusters[order])
    first, second = clustered_bootstrap(data), clustered_bootstrap(shuffled)
    assert (first.low, first.high) == pytest.approx((second.low, second.high))


@pytest.mark.parametrize(
    ("low", "high", "p", "expected"),
    [
        (0.01, 0.03, 0.01, "helps"),
        (0.01, 0.03, 0.06, "no evidence"),
        (-0.01, 0.03, 0.01, "no evidence"),
        (-0.03, -0.01, 0.01, "hurts"),
        (-0.03, -0.01, 0.2, "no evidence"),
    ],
)
def test_the_interval_and_p_must_agree(low, high, p, expected):
    assert decide(Interval((low + high) / 2, low, high, 0.95), p, n_seeds=3) == expected


def test_a_margin_asks_for_more():
    interval = Interval(0.02, 0.008, 0.032, 0.95)
    assert decide(interval, 0.001, 3, margin=0.01) == "no evidence"


def test_the_sentence_carries_its_numbers():
    text = sentence("helps", "Dice", Interval(0.021, 0.008, 0.034, 0.95), "original", 0.003, 3, 240)
    assert text == (
        "helps: Dice +0.021 [0.008, 0.034] over original, p = 0.003, n = 3 seeds, 240 test images"
    )
    alone = sentence("hurts", "Dice", Interval(-0.1, -0.2, -0.05, 0.95), "original", 1e-4, 1, 9)
    assert "p < 0.001, n = 1 seed, 9 test images (one seed" in alone
    unsure = sentence("no evidence", "Dice", Interval(0.1, 0.01, 0.3, 0.95), "original", 0.08, 3, 9)
    assert unsure.endswith("(the interval alone would say yes; the corrected p does not)")
    small = sentence("no evidence", "Dice", Interval(0.1, 0.01, 0.3, 0.95), "original", 0.01, 3, 9)
    assert small.endswith("(a difference, but within the margin)")


def test_one_seed_is_never_evidence():
    assert decide(Interval(0.3, 0.2, 0.4, 0.95), 0.001, n_seeds=1) == "no evidence"


@pytest.mark.parametrize("bad", ["shape", "clusters", "nan"])
def test_bad_scores_are_named(bad):
    scores = np.zeros((2, 4))
    other = np.zeros((2, 5)) if bad == "shape" else scores.copy()
    if bad == "nan":
        other[0, 0] = np.nan
    clusters = np.zeros(3 if bad == "clusters" else 4)
    words = {"shape": "two equal", "clusters": "one for each", "nan": "not finite"}[bad]
    with pytest.raises(ValueError, match=words):
        paired(scores, other, clusters)


def test_arms_that_are_alike_are_seldom_called_helpful():
    # Trainings on the same data that differ by chance: every call is a false alarm.
    calls = 0
    for trial in range(60):
        rng = np.random.default_rng([trial, 9])
        skill = rng.normal(0.8, 0.1, 80)
        arms = skill + rng.normal(0, 0.03, (2, 3, 1)) + rng.normal(0, 0.05, (2, 3, 80))
        data = paired(arms[0], arms[1])
        interval = clustered_bootstrap(data, resamples=400)
        calls += decide(interval, sign_flip_test(data, resamples=400), 3) != "no evidence"
    assert calls <= 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seeds", "of_lesion", "of_seed", "of_image"),
    [
        (1, 0.1, 0.0, 0.05),
        (3, 0.1, 0.006, 0.1),
        (5, 0.1, 0.006, 0.1),
        (5, 0.1, 0.02, 0.05),
        # Small trainings that differ by chance and disagree on many images.
        (2, 0.03, 0.04, 0.35),
        (3, 0.03, 0.04, 0.35),
        (5, 0.03, 0.04, 0.35),
        (3, 0.0, 0.0, 0.3),
        (3, 0.1, 0.04, 0.1),
    ],
)
def test_the_interval_covers_the_truth_as_often_as_it_says(seeds, of_lesion, of_seed, of_image):
    covered, trials = 0, 1000
    lesions = np.repeat(np.arange(100), 2)
    for trial in range(trials):
        rng = np.random.default_rng([trial, 7])
        effect = 0.02 + rng.normal(0, of_lesion, 100)[lesions]
        effect = effect + rng.normal(0, of_seed, (seeds, 1)) + rng.normal(0, of_image, (seeds, 200))
        data = paired(effect, np.zeros((seeds, 200)), lesions)
        found = clustered_bootstrap(data, resamples=500, seed=trial)
        covered += found.low <= 0.02 <= found.high
    assert 0.93 <= covered / trials <= 0.97


@pytest.mark.slow
def test_the_interval_of_balanced_accuracy_covers_the_truth():
    covered, trials = 0, 1000
    labels = np.repeat(["a", "b", "c"], [120, 60, 30])
    for trial in range(trials):
        rng = np.random.default_rng([trial, 8])
        # An image is easy or hard for every model; the treatment is right more often by 0.05.
        ease = rng.uniform(-0.2, 0.2, 210)
        right = [rng.random((3, 210)) < base + ease for base in (0.70, 0.65)]
        arms = [recall_tally(np.where(r, labels, "x"), labels) for r in right]
        found = clustered_bootstrap(Paired(*arms, np.arange(210)), resamples=500, seed=trial)
        covered += found.low <= 0.05 <= found.high
    assert 0.93 <= covered / trials <= 0.97
