import numpy as np
import pytest

from didgen.captions.attributes import DERMOSCOPIC
from didgen.captions.measure import MeasurementError, measure


def lines(image: np.ndarray, count: int) -> np.ndarray:
    """Draw dark lines, two pixels wide, from the upper edge to the lower one."""
    size = image.shape[0]
    image = image.copy()
    starts = np.linspace(0.03 * size, 0.9 * size, count)
    for start in starts:
        rows = np.arange(size)
        columns = (start + 0.12 * rows).astype(int)
        for shift in (0, 1):
            kept = columns + shift < size
            image[rows[kept], columns[kept] + shift] = (30, 25, 22)
    return image


def test_a_dark_disc_in_the_upper_left(ellipse, draw):
    mask = ellipse(128, 0.25, 0.25, 0.15, 0.15)
    found = measure(draw(mask, inner=(70, 40, 30)), mask, "MEL")
    words = found.attributes
    assert found.mask_source == "given"
    assert words.model_dump(exclude=set(DERMOSCOPIC)) == {
        "diagnosis": "MEL",
        "size": "small",
        "shape": "round",
        "symmetry": "symmetric",
        "border": "sharp",
        "colors": ("dark brown",),
        "position": "upper left",
        "skin_tone": "very light",
        "hair": "none",
        "artifacts": (),
    }
    assert found.numbers["area_share"] == pytest.approx(np.pi * 0.15**2, abs=0.003)
    assert found.numbers["row"] == pytest.approx(0.25, abs=0.005)
    # sRGB (70, 40, 30) has L = 19.7.
    assert found.numbers["region_lightness"] == pytest.approx(19.7, abs=0.2)


def test_a_large_oval_at_the_right(ellipse, draw):
    mask = ellipse(128, 0.5, 0.7, 0.45, 0.25)
    words = measure(draw(mask), mask).attributes
    assert (words.size, words.shape, words.position) == ("large", "oval", "right")
    assert words.diagnosis is None


def test_mirrored_image_mirrored_position(ellipse, draw):
    from didgen.captions.attributes import flip_horizontal

    mask = ellipse(128, 0.75, 0.2, 0.15, 0.17)
    image = draw(mask)
    words = measure(image, mask).attributes
    mirrored = measure(image[:, ::-1].copy(), mask[:, ::-1].copy()).attributes
    assert mirrored == flip_horizontal(words)


@pytest.mark.parametrize(
    ("outer", "tone"), [((225, 185, 160), "very light"), ((85, 55, 40), "dark")]
)
def test_tone_of_flat_surroundings(ellipse, draw, outer, tone):
    mask = ellipse(96, 0.5, 0.5, 0.2, 0.2)
    assert measure(draw(mask, inner=(30, 20, 15), outer=outer), mask).attributes.skin_tone == tone


def test_a_bluish_light_leaves_the_tone_unknown(ellipse, draw):
    mask = ellipse(96, 0.5, 0.5, 0.2, 0.2)
    assert measure(draw(mask, outer=(180, 180, 185)), mask).attributes.skin_tone is None


@pytest.mark.parametrize(("count", "word"), [(0, "none"), (4, "some"), (24, "dense")])
def test_hair(ellipse, draw, count, word):
    mask = ellipse(128, 0.5, 0.5, 0.15, 0.15)
    image = lines(draw(mask), count) if count else draw(mask)
    assert measure(image, mask).attributes.hair == word


def test_dark_corners_ink_and_tone_beside_them(ellipse, draw):
    size = 160
    mask = ellipse(size, 0.5, 0.5, 0.2, 0.2)
    image = draw(mask)
    plain = measure(image, mask).attributes
    image[~ellipse(size, 0.5, 0.5, 0.55, 0.55)] = (8, 8, 8)
    image[40:50, 60:75] = (90, 60, 160)
    image[ellipse(size, 0.5, 0.5, 0.2, 0.2)] = (120, 70, 50)
    words = measure(image, mask).attributes
    assert set(words.artifacts) == {"dark corners", "ink"}
    assert words.skin_tone == plain.skin_tone and words.colors == plain.colors


def test_a_bluish_light_is_no_ink(ellipse, draw):
    mask = ellipse(128, 0.5, 0.5, 0.2, 0.2)
    image = draw(mask, inner=(90, 40, 90), outer=(190, 180, 205))
    image[10:60, 10:60] = (170, 155, 200)
    assert measure(image, mask).attributes.artifacts == ()
    image[80:90, 10:30] = (70, 40, 150)
    assert measure(image, mask).attributes.artifacts == ("ink",)


@pytest.mark.parametrize("with_line", [False, True])
def test_a_ruler_is_no_hair(ellipse, draw, with_line):
    mask = ellipse(200, 0.4, 0.5, 0.2, 0.2)
    image = draw(mask)
    for column in range(30, 171, 10):
        image[180:188, column : column + 2] = (20, 20, 20)
    if with_line:
        image[187:189, 30:172] = (20, 20, 20)
    words = measure(image, mask).attributes
    assert words.artifacts == ("ruler",) and words.hair == "none"


def test_gel_bubbles(ellipse, draw):
    mask = ellipse(128, 0.5, 0.5, 0.15, 0.15)
    image = draw(mask, outer=(190, 140, 115))
    for row, column in ((20, 30), (25, 90), (100, 60)):
        image[row : row + 3, column : column + 3] = (250, 248, 246)
    assert measure(image, mask).attributes.artifacts == ("gel bubbles",)


def test_without_a_mask_it_segments_and_says_so(ellipse, draw):
    mask = ellipse(128, 0.45, 0.55, 0.22, 0.2)
    image = draw(mask)
    found, given = measure(image), measure(image, mask)
    assert found.mask_source == "segmented"
    assert found.attributes == given.attributes
    assert found.numbers["area_share"] == pytest.approx(given.numbers["area_share"], rel=0.1)


def test_where_nothing_stands_out_only_the_surroundings_are_stated():
    noise = np.random.default_rng(0).normal(0, 2, (96, 96, 3))
    image = (np.array([225, 185, 160]) + noise).round().clip(0, 255).astype(np.uint8)
    found = measure(image)
    words = found.attributes
    assert found.mask_source == "whole image"
    assert words.size is words.shape is words.position is words.border is None
    assert words.colors == () and words.skin_tone == "very light"


def test_a_mask_over_the_whole_field_is_measured(draw):
    mask = np.ones((64, 64), dtype=bool)
    words = measure(draw(mask), mask).attributes
    assert (words.size, words.position) == ("large", "center")


def test_sizes_do_not_change_the_words(ellipse, draw):
    words = []
    for size in (128, 256, 512):
        mask = ellipse(size, 0.4, 0.6, 0.2, 0.3)
        words.append(measure(draw(mask), mask).attributes)
    assert words[0] == words[1] == words[2]


def test_a_speck_survives_the_reduction(draw):
    mask = np.zeros((1024, 1024), dtype=bool)
    mask[500, 500] = True
    assert measure(draw(mask), mask).attributes.size == "small"


@pytest.mark.parametrize(
    ("image", "mask", "message"),
    [
        (np.zeros((64, 64, 3), np.float32), None, "uint8 RGB"),
        (np.zeros((64, 64), np.uint8), None, "uint8 RGB"),
        (np.zeros((64, 64, 4), np.uint8), None, "uint8 RGB"),
        (np.zeros((16, 64, 3), np.uint8), None, "at least 32x32"),
        (np.zeros((64, 64, 3), np.uint8), np.ones((64, 32), bool), "as its image"),
        (np.zeros((64, 64, 3), np.uint8), np.ones((64, 64), np.uint8), "expected bool"),
        (np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), bool), "empty mask"),
    ],
)
def test_bad_input_is_refused(image, mask, message):
    with pytest.raises(MeasurementError, match=message):
        measure(image, mask)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_flat_images_do_not_break_it(value):
    image = np.full((64, 64, 3), value, dtype=np.uint8)
    assert measure(image).mask_source == "whole image"
    mask = np.zeros((64, 64), dtype=bool)
    mask[20:40, 20:40] = True
    assert measure(image, mask).attributes.border == "blurred"


def test_phantoms_are_read_as_drawn():
    from didgen.captions.attributes import position_word, size_word, skin_tone_word
    from didgen.data.phantoms import cohort, render

    pairs = []
    for spec in cohort(70, seed=5):
        drawn = render(spec, 128)
        pairs.append((measure(drawn.image, drawn.mask, drawn.label).attributes, drawn.truth))

    def share(is_right) -> float:
        return float(np.mean([is_right(words, truth) for words, truth in pairs]))

    assert share(lambda w, t: w.size == size_word(t.area_share)) >= 0.95
    assert share(lambda w, t: w.position == position_word(t.center[1], t.center[0])) >= 0.95
    assert share(lambda w, t: w.hair == t.hair) >= 0.9
    assert share(lambda w, t: w.skin_tone == skin_tone_word(t.ita)) >= 0.9
    assert share(lambda w, t: w.shape == t.shape) >= 0.9
    assert share(lambda w, t: (w.symmetry == "asymmetric") == t.asymmetric) >= 0.9
    assert share(lambda w, t: w.colors[0] == t.colors[0]) >= 0.8
    assert share(lambda w, t: w.colors[0] in t.colors[:2]) >= 0.85
    assert share(lambda w, t: set(w.artifacts) == set(t.artifacts)) >= 0.85
