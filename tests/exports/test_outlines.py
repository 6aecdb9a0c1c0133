import cv2
import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import points_in_poly

from didgen.exports.outlines import area, contours, rings, run_lengths
from tests.exports.conftest import MASKS


def drawn(seed):
    """Pixels at random, smoothed: parts, holes and corners of all kinds."""
    noise = np.random.default_rng(seed).normal(size=(19, 23))
    return ndimage.gaussian_filter(noise, seed % 3 / 2) > 0


MANY = [*(make() for make in MASKS.values()), *map(drawn, range(12))]


def inside(ring, shape):
    """The pixels whose center lies in a ring."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    centers = np.stack([x.ravel(), y.ravel()], 1) + 0.5
    return points_in_poly(centers, ring).reshape(shape)


@pytest.mark.parametrize("mask", MANY)
def test_rings_enclose_the_pixels_and_no_others(mask):
    found = rings(mask)
    assert sum(map(area, found)) == mask.sum()
    crossed = sum(inside(ring, mask.shape).astype(int) for ring in found)
    np.testing.assert_array_equal(crossed % 2 == 1, mask)


def test_rings_by_hand():
    mask = np.zeros((4, 5), bool)
    mask[1:3, 1:4] = True
    (ring,) = rings(mask)
    assert ring.tolist() == [[1, 1], [4, 1], [4, 3], [1, 3]]
    # Two pixels that touch at a corner, and a hole that runs the other way.
    assert [area(ring) for ring in rings(np.eye(2, dtype=bool))] == [1, 1]
    frame = np.ones((3, 3), bool)
    frame[1, 1] = False
    assert sorted(area(ring) for ring in rings(frame)) == [-1, 9]
    assert rings(np.zeros((3, 3), bool)) == []


def test_run_lengths_by_hand():
    mask = np.array([[1, 0, 0], [1, 1, 0]], bool)
    assert run_lengths(mask) == [0, 2, 1, 1, 2]
    assert run_lengths(~mask) == [2, 1, 1, 2]


@pytest.mark.parametrize("mask", MANY)
def test_contours_filled_are_the_parts_without_holes(mask):
    again = np.zeros(mask.shape, np.uint8)
    for contour in contours(mask):
        assert len(contour) >= 3
        cv2.fillPoly(again, [contour.astype(np.int32)], 1)
    np.testing.assert_array_equal(again > 0, ndimage.binary_fill_holes(mask))
