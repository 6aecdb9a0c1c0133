"""Precision, recall, density, coverage: a case by hand, torch-fidelity, and swapped arguments."""

import numpy as np
import pytest
import torch
from torch_fidelity.metric_prc import prc_features_to_metric

from didgen.metrics.manifold import neighbour_radii, precision_recall_density_coverage


def test_by_hand():
    real, synthetic = np.array([[0.0], [1.0], [3.0]]), np.array([[0.5], [10.0], [10.5]])
    assert neighbour_radii(real, 1).tolist() == [1, 1, 2]
    found = precision_recall_density_coverage(real, synthetic, k=1)
    # 0.5 lies in the balls of 0 and 1 (3 ± 2 begins at 1); 10 and 10.5 lie in none.
    assert found["precision"] == pytest.approx(1 / 3)
    assert found["density"] == pytest.approx(2 / 3)
    assert found["coverage"] == pytest.approx(2 / 3)
    # The ball of 0.5 reaches 9.5, to every real image.
    assert found["recall"] == 1


def test_torch_fidelity_agrees():
    rng = np.random.default_rng(0)
    real, synthetic = rng.normal(size=(90, 4)), rng.normal(0.5, 0.8, size=(70, 4))
    found = precision_recall_density_coverage(real, synthetic, k=3)
    # It calls the judged set first.
    theirs = prc_features_to_metric(
        torch.tensor(synthetic), torch.tensor(real), prc_neighborhood=3, verbose=False
    )
    assert found["precision"] == pytest.approx(theirs["precision"], abs=1e-6)
    assert found["recall"] == pytest.approx(theirs["recall"], abs=1e-6)


def test_swapped_arguments_are_noticed():
    """Synthetic images from one spot of the real ones: all believable, most of it missing."""
    rng = np.random.default_rng(0)
    real, narrow = rng.normal(size=(200, 3)), rng.normal(0, 0.1, size=(200, 3))
    found = precision_recall_density_coverage(real, narrow)
    assert found["precision"] > 0.95
    assert found["recall"] < 0.2
    assert found["coverage"] < 0.3
    swapped = precision_recall_density_coverage(narrow, real)
    assert swapped["precision"] == found["recall"]
    assert swapped["recall"] == found["precision"]
    assert swapped["coverage"] != found["coverage"]


def test_two_samples_of_one_distribution_have_density_one():
    real, synthetic = np.random.default_rng(0).normal(size=(2, 600, 2))
    found = precision_recall_density_coverage(real, synthetic)
    assert found["density"] == pytest.approx(1, abs=0.06)
    # Naeem et al.: 1 - 1 / 2^k in expectation.
    assert found["coverage"] == pytest.approx(1 - 1 / 2**5, abs=0.03)


def test_too_few_neighbours_are_refused():
    with pytest.raises(ValueError, match="more than k = 5"):
        precision_recall_density_coverage(np.zeros((5, 2)), np.zeros((9, 2)))
