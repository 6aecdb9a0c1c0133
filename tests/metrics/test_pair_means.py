"""Means over pairs: which pairs, and how sure."""

import numpy as np
import pytest

from didgen.metrics.pair_means import draw_pairs, pair_mean_interval


def test_pairs_are_of_one_class_and_different():
    labels = np.array(["a"] * 6 + ["b"] * 4 + ["c"])
    pairs = draw_pairs(labels, None, 100)
    assert len(pairs.first) == 15 + 6
    assert (labels[pairs.first] == labels[pairs.second]).all()
    assert (pairs.first != pairs.second).all()
    assert len(set(zip(pairs.first, pairs.second, strict=True))) == 21


def test_few_pairs_are_shared_among_classes():
    labels = np.array(["a"] * 50 + ["b"] * 5)
    drawn = labels[draw_pairs(labels, None, 12).first]
    assert (drawn == "b").sum() == 6
    both = draw_pairs(labels, np.array(["b", "b", "a"]), 8)
    assert (labels[both.first] == np.array(["b", "b", "a"])[both.second]).all()


def test_no_pair_at_all_is_refused():
    with pytest.raises(ValueError, match="no two images of one class"):
        draw_pairs(np.array(["a"]), np.array(["b"]), 5)


def test_pairs_that_share_images_are_less_sure():
    """All pairs of 30 images: the error is that of 30 images, not of 435 pairs."""
    rng = np.random.default_rng(0)
    own = rng.normal(size=30)
    pairs = draw_pairs(np.zeros(30), None, 1000)
    values = own[pairs.first] + own[pairs.second]
    mean, low, high = pair_mean_interval(values, pairs)
    assert mean == pytest.approx(2 * own.mean())
    error = 2 * own.std(ddof=1) / np.sqrt(30)
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.15)


def test_two_sets_add_both_errors():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=40), rng.normal(0, 2, size=60)
    pairs = draw_pairs(np.zeros(40), np.zeros(60), 2400)
    _, low, high = pair_mean_interval(a[pairs.first] - b[pairs.second], pairs)
    error = np.sqrt(a.var(ddof=1) / 40 + b.var(ddof=1) / 60)
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.15)
