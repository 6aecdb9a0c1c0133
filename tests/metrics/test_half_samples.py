"""Intervals from halves and the floor of real images: known errors, lesions, coverage."""

import numpy as np
import pytest

from didgen.metrics.frechet import frechet_distance
from didgen.metrics.half_samples import (
    half,
    half_sample_intervals,
    least_half,
    matched_with_floor,
)
from didgen.metrics.kernel_distance import kernel_distance


def shift(real: np.ndarray, synthetic: np.ndarray) -> dict[str, float]:
    return {"shift": float(synthetic.mean() - real.mean())}


def kernel(real: np.ndarray, synthetic: np.ndarray) -> dict[str, float]:
    return {"kernel": kernel_distance(real, synthetic)}


def test_halves_hold_whole_lesions():
    clusters = np.repeat(np.arange(21), 3)
    rng = np.random.default_rng(0)
    sizes = set()
    for _ in range(20):
        chosen = half(clusters, rng).reshape(21, 3)
        assert (chosen.all(1) | ~chosen.any(1)).all()
        sizes.add(int(chosen[:, 0].sum()))
    assert sizes == {10, 11}


def test_the_smallest_half_holds_the_smallest_lesions():
    assert least_half(np.repeat([0, 1, 2, 3, 4], [9, 1, 3, 2, 7])) == 1 + 2
    clusters = np.repeat(np.arange(9), [5, 1, 1, 2, 8, 3, 3, 1, 2])
    rng = np.random.default_rng(0)
    drawn = [half(clusters, rng) for _ in range(2000)]
    found = [count for each in drawn for count in (each.sum(), (~each).sum())]
    assert min(found) == least_half(clusters) == 5


def test_the_width_is_that_of_the_known_error():
    rng = np.random.default_rng(0)
    real, synthetic = rng.normal(size=(300, 1)), rng.normal(0.5, 1, size=(200, 1))
    found = half_sample_intervals(
        shift, real, synthetic, np.arange(300), repeats=2000, confidence=0.95, seed=0
    )
    value = found["shift"].value
    low, high = found["shift"].interval
    assert value == pytest.approx(synthetic.mean() - real.mean())
    error = np.sqrt(real.var(ddof=1) / 300 + synthetic.var(ddof=1) / 200)
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.06)


def test_what_falls_as_one_over_n_is_extrapolated_exactly():
    """Also where lesions have different numbers of images, so that halves have."""

    def biased(real, synthetic):
        return {"biased": 3 + 40 / len(real) + 40 / len(synthetic)}

    vectors = np.zeros((80, 1))
    for lesions in (np.arange(80), np.repeat(np.arange(20), [1, 2, 3, 10] * 5)):
        own = half_sample_intervals(
            biased, vectors, vectors, lesions, repeats=10, confidence=0.95, seed=0
        )["biased"]
        assert own.value == 4
        assert own.extrapolated[0] == pytest.approx(3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "dims", "shift", "scale"), [(40, 8, 0.3, 1.2), (128, 32, 0.0, 1.0), (200, 16, 0.3, 1)]
)
def test_the_extrapolated_frechet_distance_covers_the_truth_that_the_biased_one_misses(
    count, dims, shift, scale
):
    truth = dims * (shift**2 + (1 - scale) ** 2)
    covered = missed = 0
    for trial in range(200):
        rng = np.random.default_rng([trial, dims])
        real, synthetic = rng.normal(size=(count, dims)), rng.normal(shift, scale, (count, dims))
        own = half_sample_intervals(
            lambda r, s: {"distance": frechet_distance(r, s)}, real, synthetic,
            np.arange(count), repeats=30, confidence=0.95, seed=trial,
        )["distance"]  # fmt: skip
        _, low, high = own.extrapolated
        covered += low <= truth <= high
        missed += not own.interval[0] <= truth <= own.interval[1]
    assert covered >= 0.91 * 200
    assert missed >= 0.5 * 200


def test_images_of_one_lesion_widen_the_interval():
    rng = np.random.default_rng(0)
    lesions = np.repeat(np.arange(30), 10)
    real = rng.normal(size=30)[lesions][:, None]
    synthetic = rng.normal(size=(300, 1))
    widths = [
        np.ptp(
            half_sample_intervals(
                shift, real, synthetic, each, repeats=300, confidence=0.95, seed=0
            )["shift"].interval
        )
        for each in (np.arange(300), lesions)
    ]
    assert widths[1] > 1.8 * widths[0]


def test_the_floor_is_zero_for_real_images_and_not_for_others():
    rng = np.random.default_rng(0)
    real, synthetic = rng.normal(size=(201, 4)), rng.normal(0.6, 1, size=(80, 4))
    n, told = matched_with_floor(kernel, real, synthetic, np.arange(201), repeats=10, seed=0)
    assert n == 80
    mean, spread = told["real"]["kernel"]
    assert abs(mean) < 2 * spread
    assert told["synthetic"]["kernel"][0] > 10 * abs(mean)


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="found 3 real lesions and 9 synthetic"):
        half_sample_intervals(
            shift,
            np.zeros((9, 1)),
            np.zeros((9, 1)),
            np.repeat(range(3), 3),
            confidence=0.95,
            repeats=100,
            seed=0,
        )


@pytest.mark.slow
def test_the_interval_of_the_kernel_distance_covers_the_truth():
    trials, dims, shifted = 400, 4, 0.5
    rng = np.random.default_rng(1)
    truth = kernel_distance(rng.normal(size=(6000, dims)), rng.normal(shifted, 1, (6000, dims)))
    covered = 0
    for trial in range(trials):
        own = np.random.default_rng([trial, 3])
        real, synthetic = own.normal(size=(120, dims)), own.normal(shifted, 1, (120, dims))
        found = half_sample_intervals(
            kernel, real, synthetic, np.arange(120), repeats=60, seed=trial, confidence=0.95
        )
        low, high = found["kernel"].interval
        covered += low <= truth <= high
    assert 0.91 <= covered / trials <= 0.99
