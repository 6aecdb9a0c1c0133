import numpy as np
import pytest

from didgen.captions.color import (
    REFERENCES,
    cluster,
    color_words,
    name_colors,
    srgb_to_lab,
    typology_angle,
)


def lab_of(*rgb: int) -> np.ndarray:
    return srgb_to_lab(np.array(rgb, dtype=np.uint8))


def test_lab_agrees_with_scikit_image():
    from skimage.color import rgb2lab

    pixels = np.random.default_rng(0).integers(0, 256, (40, 3), dtype=np.uint8)
    assert np.abs(srgb_to_lab(pixels) - rgb2lab(pixels[None] / 255.0)[0]).max() < 0.01


def test_lab_of_known_colors():
    assert lab_of(255, 255, 255) == pytest.approx([100, 0, 0], abs=0.02)
    assert lab_of(0, 0, 0) == pytest.approx([0, 0, 0], abs=1e-4)
    # sRGB red as listed in many tables: 53.24, 80.09, 67.20
    assert lab_of(255, 0, 0) == pytest.approx([53.24, 80.09, 67.20], abs=0.05)


def test_other_types_are_refused():
    with pytest.raises(ValueError, match="uint8"):
        srgb_to_lab(np.zeros((4, 3)))
    with pytest.raises(ValueError, match="shape"):
        srgb_to_lab(np.zeros((4, 4), dtype=np.uint8))


def test_each_reference_has_its_own_name():
    lab = np.array([value for _, value in REFERENCES], dtype=np.float32)
    assert name_colors(lab) == [name for name, _ in REFERENCES]


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((10, 10, 10), "black"),
        ((70, 40, 30), "dark brown"),
        ((150, 100, 75), "light brown"),
        ((205, 165, 130), "tan"),
        ((180, 45, 45), "red"),
        ((225, 160, 155), "pink"),
        ((110, 50, 105), "purple"),
        ((95, 105, 125), "blue-gray"),
        ((240, 235, 230), "white"),
        ((225, 190, 110), "yellow"),
    ],
)
def test_names_of_plain_patches(rgb, name):
    assert name_colors(lab_of(*rgb)[None]) == [name]


def test_clusters_are_deterministic_and_shares_sum_to_one():
    lab = np.random.default_rng(1).normal(50, 15, (900, 3)).astype(np.float32)
    centers, shares = cluster(lab)
    again, shares_again = cluster(lab.copy())
    assert (centers == again).all() and (shares == shares_again).all()
    assert shares.sum() == pytest.approx(1.0)
    assert (np.diff(shares) <= 0).all()


def test_colors_by_share_and_small_ones_unnamed():
    black, tan, red = lab_of(10, 10, 10), lab_of(205, 165, 130), lab_of(180, 45, 45)
    lab = np.concatenate([np.tile(black, (60, 1)), np.tile(tan, (35, 1)), np.tile(red, (5, 1))])
    assert color_words(lab) == ("black", "tan")
    assert color_words(lab[60:]) == ("tan", "red")
    assert color_words(lab[:0]) == ()


def test_brown_is_judged_against_its_surroundings():
    brown = np.tile(np.array([35.0, 15, 18], dtype=np.float32), (50, 1))
    assert color_words(brown, tone=70) == ("dark brown",)
    assert color_words(brown, tone=42) == ("light brown",)
    gray = np.tile(np.array([50.0, 11, 9], dtype=np.float32), (50, 1))
    assert color_words(gray, tone_b=2) == ("light brown",)


def test_typology_angle_worked_by_hand():
    assert typology_angle(70.0, 20.0) == pytest.approx(45.0)
    assert typology_angle(50.0, 15.0) == pytest.approx(0.0)
    assert typology_angle(40.0, 10.0) == pytest.approx(-45.0)
    # sRGB (225, 185, 160): L = 77.96, a = 11.34, b = 17.97 -> arctan(27.96 / 17.97) = 57.3 degrees
    lightness, _, b = lab_of(225, 185, 160)
    assert typology_angle(float(lightness), float(b)) == pytest.approx(57.3, abs=0.3)
    assert typology_angle(70.0, -5.0) < 90
