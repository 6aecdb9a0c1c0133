"""The shape model: alignment undone, discs by hand, what it refuses."""

import numpy as np
import pytest

from didgen.methods.shapes import (
    CLIP,
    GRID,
    Place,
    ShapeError,
    aligned,
    draw,
    fit_shapes,
    place_of,
    signed_distance,
)


def ellipse(row, column, a, b, side=96):
    y, x = np.mgrid[:side, :side] + 0.5
    return ((y - row) / a) ** 2 + ((x - column) / b) ** 2 < 1


def overlap(first, second):
    return (first & second).sum() / (first | second).sum()


def test_signed_distance_by_hand():
    mask = np.zeros((1, 6), bool)
    mask[0, 2:5] = True
    # The last lesion pixel is 1.5 px from the left border and half a pixel from the right one.
    assert signed_distance(mask)[0].tolist() == [-1.5, -0.5, 0.5, 1.5, 0.5, -0.5]


def test_the_image_edge_is_no_border():
    mask = np.zeros((1, 4), bool)
    mask[0, :3] = True
    assert signed_distance(mask)[0].tolist() == [2.5, 1.5, 0.5, -0.5]


def test_place_by_hand():
    mask = np.zeros((10, 20), bool)
    mask[2:4, 10:15] = True
    assert place_of(mask) == pytest.approx(Place(0.3, 12.5 / 20, np.sqrt(10 / 200)))


def test_alignment_forgets_place_and_size():
    small, large = aligned(ellipse(30, 40, 10, 14)), aligned(ellipse(50, 48, 25, 35))
    assert np.abs(small - large).max() < 0.03
    # A disc of radius r has the area pi r^2: 1 / sqrt(pi) = 0.564 from center to border, so the
    # field is cut off there.
    disc = aligned(ellipse(48, 48, 30, 30))
    assert disc.shape == (GRID, GRID) and disc[GRID // 2, GRID // 2] == pytest.approx(CLIP)
    assert disc.min() == pytest.approx(-CLIP)


def test_drawing_undoes_alignment():
    mask = ellipse(40, 55, 18, 27)
    assert overlap(draw(aligned(mask), place_of(mask), 0.0, mask.shape), mask) > 0.95


def test_a_quarter_turn():
    mask = ellipse(48, 48, 15, 30)
    turned = draw(aligned(mask), place_of(mask), np.pi / 2, mask.shape)
    assert overlap(turned, mask.T) > 0.95


def test_the_model_knows_its_own_shapes():
    rng = np.random.default_rng(0)
    masks = [ellipse(48, 48, *rng.uniform(10, 35, 2)) for _ in range(12)]
    model = fit_shapes(masks, components=8)
    for mask in masks:
        again = draw(model.field(model.coordinates(mask)), place_of(mask), 0.0, mask.shape)
        assert overlap(again, mask) > 0.93
    same = fit_shapes(masks, components=8)
    assert (same.components == model.components).all()


def test_cut_lesions_are_not_learned_from():
    cut = [ellipse(5, 48, 20, 20)] * 5
    with pytest.raises(ShapeError, match="found 2 masks that lie wholly"):
        fit_shapes([*cut, ellipse(48, 48, 9, 9), ellipse(48, 48, 9, 12)])


@pytest.mark.parametrize("value", [True, False])
def test_empty_and_full_masks_are_refused(value):
    with pytest.raises(ShapeError, match="expected lesion and skin"):
        signed_distance(np.full((8, 8), value))
