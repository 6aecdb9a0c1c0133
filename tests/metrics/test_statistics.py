"""Tests and intervals: hand-worked p-values, invariances, coverage and false alarms."""

import numpy as np
import pytest
from scipy import stats

from didgen.metrics.statistics import (
    Interval,
    Paired,
    clustered_bootstrap,
    decide,
    holm,
    mcnemar_exact,
    paired_t,
    sentence,
    sign_flip_test,
    wilcoxon,
)


def paired(treatment, control, clusters=None, groups=None) -> Paired:
    treatment, control = np.atleast_2d(treatment), np.atleast_2d(control)
    n = treatment.shape[1]
    clusters = np.arange(n) if clusters is None else np.asarray(clusters)
    groups = np.zeros(n, int) if groups is None else np.asarray(groups)
    return Paired(treatment, control, clusters, groups)


def noisy(seed: int = 0, shift: float = 0.0) -> Paired:
    rng = np.random.default_rng(seed)
    control = rng.normal(0.8, 0.05, (3, 60))
    treatment = control + shift + rng.normal(0, 0.03, (3, 60))
    return paired(treatment, control, np.repeat(np.arange(30), 2))


def test_mcnemar_by_hand():
    # 5 gained, 0 lost: p = 2 * (1/2)^5.
    treatment = np.array([1] * 5 + [1] * 4 + [0] * 3, bool)
    control = np.array([0] * 5 + [1] * 4 + [0] * 3, bool)
    assert mcnemar_exact(treatment, control) == pytest.approx(1 / 16)


def test_mcnemar_ignores_who_is_first_and_is_one_without_discordant_pairs():
    a, b = np.random.default_rng(0).random((2, 50)) > 0.4
    assert mcnemar_exact(a, b) == mcnemar_exact(b, a)
    assert mcnemar_exact(a, a) == 1


def test_t_and_wilcoxon_agree_with_scipy():
    a, b = np.random.default_rng(0).normal(0.1, 1, (2, 30))
    assert paired_t(a, b) == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert wilcoxon(a, b) == pytest.approx(stats.wilcoxon(a, b).pvalue)
    assert paired_t(a, a) == wilcoxon(a, a) == 1


def test_a_constant_difference_has_an_interval_without_width():
    control = np.random.default_rng(0).random((2, 40))
    found = clustered_bootstrap(paired(control + 0.25, control, np.repeat(range(10), 4)))
    assert (found.difference, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25))


def test_swapping_the_arms_flips_the_sign():
    data = noisy(shift=0.02)
    swapped = Paired(data.control, data.treatment, data.clusters, data.groups)
    there, back = clustered_bootstrap(data), clustered_bootstrap(swapped)
    assert back.difference == pytest.approx(-there.difference)
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low))
    assert sign_flip_test(data) == sign_flip_test(swapped)


def test_groups_make_the_balanced_accuracy():
    # Class 0: 4 images, treatment right on 3, control on 1; class 1: one image, both right.
    treatment, control = [1, 1, 1, 0, 1], [1, 0, 0, 0, 1]
    data = paired(treatment, control, groups=[0, 0, 0, 0, 1])
    found = clustered_bootstrap(data, resamples=200)
    assert found.difference == pytest.approx((2 / 4 + 0) / 2)
    assert data.per_seed(data.treatment) == pytest.approx([(3 / 4 + 1) / 2])


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
    shuffled = Paired(
        data.treatment[:, order], data.control[:, order], data.clusters[order], data.groups
    )
    first, second = clustered_bootstrap(data), clustered_bootstrap(shuffled)
    assert (first.low, first.high) == pytest.approx((second.low, second.high))


def test_holm_by_hand():
    # Sorted .01 * 3, .02 * 2 = .04, .5 * 1.
    assert holm({"a": 0.02, "b": 0.5, "c": 0.01}) == pytest.approx({"a": 0.04, "b": 0.5, "c": 0.03})
    # .03 * 2 = .06 lifts the later .04 to .06.
    assert holm({"a": 0.04, "b": 0.03}) == pytest.approx({"a": 0.06, "b": 0.06})


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
    unsure = sentence("no evidence", "Dice", Interval(0.1, -0.1, 0.3, 0.95), "original", 0.01, 3, 9)
    assert unsure.endswith("(these models differ; models trained with other seeds may not)")


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
        Paired(scores, other, clusters, np.zeros(4))


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
def test_the_interval_covers_the_truth_as_often_as_it_says():
    covered, trials = 0, 1000
    for trial in range(trials):
        rng = np.random.default_rng([trial, 7])
        lesions = np.repeat(np.arange(100), 2)
        effect = 0.02 + rng.normal(0, 0.1, 100)[lesions] + rng.normal(0, 0.05, 200)
        found = clustered_bootstrap(
            paired(effect, np.zeros(200), lesions), resamples=500, seed=trial
        )
        covered += found.low <= 0.02 <= found.high
    assert 0.93 <= covered / trials <= 0.97
