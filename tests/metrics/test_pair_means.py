"""Means over pairs: which pairs, and how sure."""

import numpy as np
import pytest

from didgen.metrics.pair_means import DrawnPairs, NoPairs, draw_pairs, pair_mean_interval


def test_pairs_are_of_one_class_and_different():
    labels = np.array(["a"] * 6 + ["b"] * 4 + ["c"])
    pairs = draw_pairs(labels, None, 100, seed=0)
    assert len(pairs.first) == 15 + 6
    assert (labels[pairs.first] == labels[pairs.second]).all()
    assert (pairs.first != pairs.second).all()
    assert len(set(zip(pairs.first, pairs.second, strict=True))) == 21


def test_few_pairs_are_shared_among_classes():
    labels = np.array(["a"] * 50 + ["b"] * 5)
    drawn = labels[draw_pairs(labels, None, 12, seed=0).first]
    assert (drawn == "b").sum() == 6
    both = draw_pairs(labels, np.array(["b", "b", "a"]), 8, seed=0)
    assert (labels[both.first] == np.array(["b", "b", "a"])[both.second]).all()


def test_no_pair_at_all_is_refused():
    with pytest.raises(NoPairs, match="no two images of one class"):
        draw_pairs(np.array(["a"]), np.array(["b"]), 5, seed=0)


def test_two_photographs_of_one_lesion_are_no_pair():
    lesions = np.array(["x", "x", "x", "y", "z"])
    pairs = draw_pairs(np.zeros(5), None, 100, units=lesions, seed=0)
    assert len(pairs.first) == 10 - 3
    assert (lesions[pairs.first] != lesions[pairs.second]).all()
    with pytest.raises(NoPairs):
        draw_pairs(np.zeros(3), None, 5, units=lesions[:3], seed=0)


def test_pairs_that_share_images_are_less_sure():
    """All pairs of 30 images: the error is that of 30 images, not of 435 pairs."""
    rng = np.random.default_rng(0)
    own = rng.normal(size=30)
    pairs = draw_pairs(np.zeros(30), None, 1000, seed=0)
    values = own[pairs.first] + own[pairs.second]
    mean, low, high = pair_mean_interval(values, pairs, confidence=0.95)
    assert mean == pytest.approx(2 * own.mean())
    error = 2 * own.std(ddof=1) / np.sqrt(30)
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.15)


def test_two_sets_add_both_errors():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=40), rng.normal(0, 2, size=60)
    pairs = draw_pairs(np.zeros(40), np.zeros(60), 2400, seed=0)
    _, low, high = pair_mean_interval(a[pairs.first] - b[pairs.second], pairs, confidence=0.95)
    error = np.sqrt(a.var(ddof=1) / 40 + b.var(ddof=1) / 60)
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.15)


def test_pairs_that_share_nothing_are_as_sure_as_their_number():
    rng = np.random.default_rng(0)
    values = rng.normal(size=200)
    apart = DrawnPairs(np.arange(0, 400, 2), np.arange(1, 400, 2), within=True)
    _, low, high = pair_mean_interval(values, apart, confidence=0.95)
    error = values.std(ddof=1) / np.sqrt(200)
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.02)


def test_photographs_of_one_lesion_are_less_sure():
    rng = np.random.default_rng(0)
    lesions = np.repeat(np.arange(20), 10)
    own = rng.normal(size=20)[lesions]
    pairs = draw_pairs(np.zeros(200), None, 400, units=lesions, seed=0)
    values = own[pairs.first] + own[pairs.second]
    by_image = pair_mean_interval(values, pairs, confidence=0.95)
    by_lesion = pair_mean_interval(values, pairs, (lesions, lesions), confidence=0.95)
    assert by_lesion[2] - by_lesion[1] > 1.5 * (by_image[2] - by_image[1])


@pytest.mark.parametrize(("n", "count"), [(40, 780), (60, 300), (200, 100)])
@pytest.mark.parametrize("within", [True, False])
def test_the_interval_covers_the_truth_as_often_as_it_says(n, count, within):
    """All pairs, some, and so few that hardly two share an image."""
    covered, trials = 0, 1000
    for trial in range(trials):
        rng = np.random.default_rng([trial, 12])
        own, other = rng.normal(size=(2, n))
        pairs = draw_pairs(np.zeros(n), None if within else np.zeros(n), count, trial)
        noise = rng.normal(size=len(pairs.first))
        values = own[pairs.first] + (own if within else other)[pairs.second] + noise
        _, low, high = pair_mean_interval(values, pairs, confidence=0.95)
        covered += low <= 0 <= high
    assert 0.93 <= covered / trials <= 0.97
