"""Morphology gives bit for bit what scipy gives, at the edges and on small images too."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from didgen.captions import morphology

SEEDS = st.integers(0, 2**32 - 1)
SIDES = st.integers(3, 40)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, height=SIDES, width=SIDES, radius=st.integers(1, 6))
def test_gray_values_as_by_scipy(seed, height, width, radius):
    image = np.random.default_rng(seed).normal(50, 20, (height, width)).astype(np.float32)
    size = 2 * radius + 1
    for name in ("grey_closing", "grey_opening"):
        wanted = getattr(ndimage, name)(image, size=(size, size))
        assert np.array_equal(getattr(morphology, name)(image, size), wanted)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, height=SIDES, width=SIDES, steps=st.integers(1, 6))
def test_masks_as_by_scipy(seed, height, width, steps):
    mask = np.random.default_rng(seed).random((height, width)) < 0.7
    assert np.array_equal(
        morphology.grow(~mask, steps), ndimage.maximum_filter(~mask, size=2 * steps + 1)
    )
    for name in ("binary_opening", "binary_closing"):
        wanted = getattr(ndimage, name)(mask, iterations=steps)
        assert np.array_equal(getattr(morphology, name)(mask, steps), wanted)


@pytest.mark.parametrize("value", [False, True])
def test_empty_and_full_masks(value):
    mask = np.full((9, 7), value)
    assert (morphology.grow(mask, 2) == value).all()
    assert (morphology.binary_opening(np.pad(mask, 3), 2).any()) == value
