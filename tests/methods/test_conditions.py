"""Condition masks: always lesion and skin, new each time, the same for the same generator."""

import numpy as np
import pytest

from didgen.methods.conditions import (
    LARGEST,
    SMALLEST,
    ShapeSampling,
    Warp,
    sample_mask,
    warp_mask,
)
from didgen.methods.shapes import ShapeError, fit_shapes, place_of

STILL = Warp(turn=0, zoom=1, stretch=1, shift=0, bend=0)


def ellipse(row, column, a, b, side=64):
    y, x = np.mgrid[:side, :side] + 0.5
    return ((y - row) / a) ** 2 + ((x - column) / b) ** 2 < 1


def overlap(first, second):
    return (first & second).sum() / (first | second).sum()


LESIONS = [
    ellipse(32, 32, 12, 20),
    ellipse(0, 30, 20, 9),  # cut by the edge
    ellipse(50, 12, 4, 3),  # tiny
    ellipse(32, 32, 43, 40),  # nearly all of the image
    ellipse(20, 20, 8, 8) | ellipse(45, 45, 9, 7),  # two lesions
]


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(1)
    return fit_shapes([ellipse(32, 32, *rng.uniform(6, 25, 2)) for _ in range(15)], 6)


@pytest.mark.parametrize("index", range(len(LESIONS)))
def test_there_is_always_lesion_and_skin_in_one_piece(model, index):
    from scipy import ndimage

    mask = LESIONS[index]
    for seed in range(12):
        rngs = [np.random.default_rng([seed, turn]) for turn in range(2)]
        other = LESIONS[(index + seed) % len(LESIONS)]
        for made in (warp_mask(mask, rngs[0]), sample_mask(model, mask, other, rngs[1])):
            assert made.dtype == bool and made.shape == mask.shape
            unchanged = (made == mask).all()
            assert unchanged or SMALLEST <= made.mean() <= LARGEST
            assert made.any() and not made.all()
            assert unchanged or ndimage.label(made, np.ones((3, 3)))[1] == 1


def test_the_generator_decides(model):
    mask, other = LESIONS[0], LESIONS[1]
    for make in (
        lambda rng: warp_mask(mask, rng),
        lambda rng: sample_mask(model, mask, other, rng),
    ):
        first, again, second = (make(np.random.default_rng(seed)) for seed in (3, 3, 4))
        assert (first == again).all()
        assert overlap(first, second) < 0.95


def test_without_any_warping_the_mask_stays():
    # A mirror image at most, about the centroid of a symmetric lesion.
    assert overlap(warp_mask(LESIONS[0], np.random.default_rng(0), STILL), LESIONS[0]) > 0.97


def test_zoom_alone_scales_the_area():
    class Highest:
        """A generator whose draws are all at the upper end."""

        def uniform(self, low, high, size=None):
            return high if size is None else np.full(size, high)

        def choice(self, values):
            return 1.0

        def standard_normal(self, shape):
            return np.zeros(shape)

    settings = Warp(turn=0, zoom=1.2, stretch=1, shift=0, bend=0)
    mask = ellipse(32, 32, 10, 15)
    made = warp_mask(mask, Highest(), settings)
    assert made.sum() / mask.sum() == pytest.approx(1.44, rel=0.03)
    shifted = warp_mask(mask, Highest(), Warp(turn=0, zoom=1, stretch=1, shift=0.1, bend=0))
    assert place_of(shifted).row - place_of(mask).row == pytest.approx(0.1, abs=0.01)


def test_a_sampled_shape_lies_near_the_first_lesion(model):
    mask = ellipse(24, 40, 8, 10)
    settings = ShapeSampling(spread=0.0, zoom=1.0, shift=0.0)
    made = sample_mask(model, mask, mask, np.random.default_rng(0), settings)
    assert place_of(made).row == pytest.approx(place_of(mask).row, abs=0.02)
    assert made.sum() == pytest.approx(mask.sum(), rel=0.1)


@pytest.mark.parametrize("value", [True, False])
def test_empty_and_full_masks_are_refused(value):
    with pytest.raises(ShapeError, match="expected lesion and skin"):
        warp_mask(np.full((16, 16), value), np.random.default_rng(0))
