import numpy as np
import pytest

from didgen.captions.attributes import Attributes
from didgen.captions.color import srgb_to_lab
from didgen.captions.outline import (
    border_width,
    border_word,
    measure_outline,
    shape_word,
    symmetry_word,
    with_layout,
)
from didgen.captions.sentence import write_sentence


def star(size: int = 128, points: int = 5) -> np.ndarray:
    grid = (np.arange(size) + 0.5) / size - 0.5
    y, x = np.meshgrid(grid, grid, indexing="ij")
    radius = 0.25 + 0.13 * np.cos(points * np.arctan2(y, x))
    return np.hypot(y, x) < radius


def test_a_disc_is_round_symmetric_and_solid(ellipse):
    found = measure_outline(ellipse(128, 0.5, 0.5, 0.3, 0.3))
    assert found.solidity > 0.985
    assert found.axis_ratio == pytest.approx(1.0, abs=0.01)
    assert found.asymmetry < 0.03
    assert (shape_word(found), symmetry_word(found)) == ("round", "symmetric")


def test_the_axis_ratio_of_an_ellipse(ellipse):
    found = measure_outline(ellipse(200, 0.5, 0.5, 0.4, 0.2))
    assert found.axis_ratio == pytest.approx(2.0, abs=0.05)
    assert (shape_word(found), symmetry_word(found)) == ("oval", "symmetric")


def test_a_star_is_irregular():
    assert shape_word(measure_outline(star())) == "irregular"


def test_a_half_disc_is_asymmetric(ellipse):
    disc = ellipse(128, 0.5, 0.5, 0.35, 0.35)
    disc[:, 64:] &= np.arange(128)[:, None] < 64
    found = measure_outline(disc)
    assert symmetry_word(found) == "asymmetric"


def test_turning_and_scaling_change_little(ellipse):
    grid = (np.arange(256) + 0.5) / 256 - 0.5
    y, x = np.meshgrid(grid, grid, indexing="ij")
    turned = ((x + y) / 0.4) ** 2 + ((x - y) / 0.6) ** 2 <= 1
    upright = measure_outline(ellipse(128, 0.5, 0.5, 0.2, 0.3))
    found = measure_outline(turned)
    assert found.axis_ratio == pytest.approx(upright.axis_ratio, abs=0.03)
    assert found.solidity == pytest.approx(upright.solidity, abs=0.01)
    assert found.asymmetry == pytest.approx(upright.asymmetry, abs=0.03)


def test_holes_and_crumbs_do_not_count(ellipse):
    mask = ellipse(128, 0.5, 0.5, 0.3, 0.3)
    whole = measure_outline(mask)
    mask = mask & ~ellipse(128, 0.5, 0.5, 0.05, 0.05)
    mask[2:4, 2:4] = True
    assert measure_outline(mask) == whole


@pytest.mark.parametrize("pixels", [1, 2, 5])
def test_tiny_masks_can_be_measured(pixels):
    mask = np.zeros((64, 64), dtype=bool)
    mask[30, 30 : 30 + pixels] = True
    found = measure_outline(mask)
    assert 0 < found.solidity <= 1 and found.axis_ratio >= 1 and 0 <= found.asymmetry < 2


def test_border_width_follows_the_blur(ellipse, draw):
    from scipy.ndimage import gaussian_filter

    mask = ellipse(128, 0.5, 0.5, 0.28, 0.28)
    image = draw(mask)
    none = np.zeros_like(mask)
    widths = []
    for sigma in (0, 3, 6, 10):
        blurred = gaussian_filter(image.astype(float), (sigma, sigma, 0)).round().astype(np.uint8)
        widths.append(border_width(srgb_to_lab(blurred), mask, none))
    assert widths == sorted(widths)
    assert border_word(widths[0]) == "sharp" and border_word(widths[-1]) == "blurred"


def test_no_contrast_is_a_blurred_border(ellipse, draw):
    mask = ellipse(96, 0.5, 0.5, 0.28, 0.28)
    flat = draw(mask, inner=(200, 160, 140), outer=(202, 162, 142))
    assert border_width(srgb_to_lab(flat), mask, np.zeros_like(mask)) == 1.0


def disc(row, column, radius, side=96):
    y, x = np.mgrid[:side, :side] + 0.5
    return (y - row) ** 2 + (x - column) ** 2 < radius**2


def test_the_words_of_the_mask_change_and_the_others_stay():
    attributes = Attributes(
        diagnosis="MEL", size="large", shape="irregular", symmetry="asymmetric", border="sharp",
        colors=("dark brown", "black"), position="center", skin_tone="light", hair="some",
        artifacts=("ruler",),
    )  # fmt: skip
    found = with_layout(attributes, disc(20, 76, 12))
    assert (found.size, found.position) == ("small", "upper right")
    assert (found.shape, found.symmetry) == ("round", "symmetric")
    assert (found.colors, found.border, found.hair) == (("dark brown", "black"), "sharp", "some")
    assert write_sentence(found) == (
        "A small symmetric round melanoma, dark brown and black, sharp border, in the upper right, "
        "on light tone, with some hair and a ruler."
    )
