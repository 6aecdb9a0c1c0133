"""Fréchet distance: hand-worked cases, torch-fidelity's own numbers, refusals."""

import numpy as np
import pytest
from torch_fidelity.metric_fid import fid_statistics_to_metric

from didgen.metrics.frechet import (
    TooFewImages,
    axes_for,
    check_enough,
    frechet_distance,
    principal_axes,
)


def exact(mean: float, sd: float) -> np.ndarray:
    """Four numbers with this very mean and standard deviation (n - 1)."""
    values = np.array([-1.0, -1.0, 1.0, 1.0])
    return (mean + sd * values / values.std(ddof=1))[:, None]


def test_by_hand():
    # (0 - 3)^2 + (1 - 2)^2.
    assert frechet_distance(exact(0, 1), exact(3, 2)) == pytest.approx(10)
    assert frechet_distance(exact(3, 2), exact(0, 1)) == pytest.approx(10)


def test_a_set_has_no_distance_to_itself_or_to_itself_in_another_order():
    x = np.random.default_rng(0).normal(size=(40, 8))
    assert frechet_distance(x, x[::-1]) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("n_real", "n_synthetic", "dims"), [(80, 60, 8), (20, 50, 30), (9, 7, 12)])
def test_torch_fidelity_agrees(n_real, n_synthetic, dims):
    rng = np.random.default_rng(0)
    real = rng.normal(size=(n_real, dims)) @ rng.normal(size=(dims, dims))
    synthetic = rng.normal(0.3, 1.2, size=(n_synthetic, dims))
    statistics = [{"mu": x.mean(0), "sigma": np.cov(x, rowvar=False)} for x in (real, synthetic)]
    theirs = fid_statistics_to_metric(*statistics, verbose=False)
    theirs = next(iter(theirs.values()))
    assert frechet_distance(real, synthetic) == pytest.approx(theirs, rel=1e-3)


def test_turning_the_space_changes_nothing():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 5)), rng.normal(1, 2, size=(25, 5))
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    assert frechet_distance(x @ turn + 3, y @ turn + 3) == pytest.approx(frechet_distance(x, y))


def test_few_images_of_one_distribution_are_far_apart():
    """The bias for which equal N is asked: the truth is 0."""
    rng = np.random.default_rng(0)
    few, many = (frechet_distance(*rng.normal(size=(2, n, 32))) for n in (40, 4000))
    assert few > 10 * many


def test_too_few_images_are_refused_and_what_would_do_is_said():
    check_enough(1281, 1300, 1280)
    with pytest.raises(TooFewImages, match="more than 1280.*kernel distance.*principal"):
        check_enough(2000, 1280, 1280)
    with pytest.raises(TooFewImages, match="at least 16"):
        axes_for(15)
    assert [axes_for(n) for n in (16, 63, 64, 300, 5000)] == [4, 8, 16, 64, 64]


def test_principal_axes_find_the_directions_of_most_variance():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3)) * [0.1, 5, 1]
    axes = principal_axes(x, 2)
    assert abs(axes[1, 0]) > 0.99
    assert abs(axes[2, 1]) > 0.99
    with pytest.raises(ValueError, match="at least 4"):
        principal_axes(x, 4)


@pytest.mark.parametrize("bad", [np.zeros((1, 3)), np.full((4, 3), np.nan), np.zeros((4, 2))])
def test_bad_features_are_named(bad):
    with pytest.raises(ValueError, match="expected"):
        frechet_distance(np.zeros((5, 3)), bad)
