"""Measures of one mask: numbers worked by hand."""

import numpy as np
import pytest

from didgen.metrics.masks import area_fraction, border_contact, pale_outside


def test_area_by_hand():
    mask = np.zeros((4, 5), bool)
    mask[1:3, :2] = True
    assert area_fraction(mask) == 4 / 20
    assert area_fraction(~np.zeros((4, 5), bool)) == 1


def test_border_contact_by_hand():
    # A 4x5 image has 2*5 + 2*2 = 14 outermost pixels; corners count once.
    mask = np.zeros((4, 5), bool)
    mask[:2, :3] = True
    assert border_contact(mask) == pytest.approx(4 / 14)
    assert border_contact(np.pad(np.ones((2, 3), bool), 1)) == 0
    assert border_contact(np.ones((4, 5), bool)) == 1


def test_pale_outside_by_hand():
    image = np.full((4, 4, 3), 100, np.uint8)
    mask = np.zeros((4, 4), bool)
    mask[:2, :2] = True
    image[mask] = 255  # inside: does not count
    image[3, 3], image[3, 2], image[0, 3] = 200, 139, 0
    assert pale_outside(image, mask) == pytest.approx(1 / 12)
    assert pale_outside(image, mask, levels=39) == pytest.approx(2 / 12)
    assert pale_outside(image, np.ones((4, 4), bool)) == 0


def test_pale_outside_does_not_depend_on_the_skin_tone():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 60, (16, 16, 3)).astype(np.uint8)
    image[:3] += 90
    mask = np.zeros((16, 16), bool)
    assert pale_outside(image, mask) == pale_outside(image + np.uint8(60), mask) == 3 / 16


def test_sizes_must_agree():
    with pytest.raises(ValueError, match="expected"):
        pale_outside(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), bool))
