"""Kernel distance: a hand-worked case, torch-fidelity's own number, no bias."""

import numpy as np
import pytest
from torch_fidelity.metric_kid import kernel_poly, mmd2

from didgen.metrics.kernel_distance import kernel_distance


def test_by_hand():
    # One feature: (xy + 1)^3. Within 0, 0: 1. Within 1, 1: 8. Across: 1.
    assert kernel_distance(np.zeros((2, 1)), np.ones((2, 1))) == pytest.approx(1 + 8 - 2)


def test_torch_fidelity_agrees():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 16)), rng.normal(0.2, 1.1, size=(50, 16))
    kernels = (kernel_poly(a, b, degree=3, gamma=None, coef0=1) for a, b in ((x, x), (x, y)))
    k_xx, k_xy = kernels
    theirs = mmd2(k_xx, k_xy, kernel_poly(y, y, degree=3, gamma=None, coef0=1))
    assert kernel_distance(x, y) == pytest.approx(theirs)


def test_it_has_no_bias_in_small_sets():
    rng = np.random.default_rng(0)
    found = [kernel_distance(*rng.normal(size=(2, 12, 8))) for _ in range(400)]
    assert abs(np.mean(found)) < 3 * np.std(found) / 20
    assert min(found) < 0


def test_one_image_is_no_set():
    with pytest.raises(ValueError, match="two of each"):
        kernel_distance(np.zeros((1, 2)), np.zeros((4, 2)))
