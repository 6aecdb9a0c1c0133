"""The conditioning benchmark's pairing and statistics, by hand, without any model."""

import numpy as np
import pytest

from benchmarks.conditioning import (
    CONTRASTS,
    beyond,
    cohens_d,
    effect,
    fitting,
    paired_p,
    paired_prompts,
    values_of,
)
from didgen.captions.attributes import Attributes
from didgen.captions.measure import measure
from tests.captions.made_up import Words

SIZE = next(contrast for contrast in CONTRASTS if contrast.attribute == "size")
TONE = next(contrast for contrast in CONTRASTS if contrast.attribute == "skin_tone")
PLACE = next(contrast for contrast in CONTRASTS if contrast.attribute == "position")
PARENTS = {
    f"{code}{k}": Attributes(diagnosis=code, size="medium", colors=("tan",), position="top")
    for code in ("MEL", "NV")
    for k in range(2)
}


def disc(center, radius, color=(120, 70, 50)):
    """A disc on light surroundings, uint8 (96, 96, 3); center and radius in shares of the side."""
    grid = (np.arange(96) + 0.5) / 96 - center
    image = np.full((96, 96, 3), (225, 185, 160), np.uint8)
    image[grid[:, None] ** 2 + grid[None] ** 2 < radius**2] = color
    return image


def test_prompts_of_a_pair_differ_in_the_one_word_and_share_the_seed():
    pairs = paired_prompts(SIZE, PARENTS, 6, Words(77), seed=0)
    assert len(pairs) == 6 and len({first.seed for first, _ in pairs}) == 6
    for first, second in pairs:
        assert first.seed == second.seed
        assert first.caption.replace("large", "small") == second.caption != first.caption
    assert [first.label for first, _ in pairs[:4]] == ["MEL", "NV"] * 2


def test_parents_are_of_classes_that_know_both_values():
    small, large = ({"size": size} for size in ("small", "large"))
    mixed = {
        "a": Attributes(diagnosis="MEL", **small), "b": Attributes(diagnosis="MEL", **large),
        "c": Attributes(diagnosis="NV", **small),
    }  # fmt: skip
    assert set(fitting(SIZE, mixed)) == {"a", "b"}
    assert set(fitting(TONE, mixed)) == {"a", "b", "c"}


def test_effects_by_hand():
    first, second = np.array([3.0, 4, 5]), np.array([1.0, 2, 3])
    assert cohens_d(first, second) == pytest.approx(2)
    assert np.isnan(cohens_d(np.ones(3), np.ones(3)))
    # Five pairs, all larger: one sign pattern of 32.
    assert paired_p(np.arange(5) + 1.0, np.zeros(5)) == pytest.approx(1 / 32)
    assert paired_p(np.zeros(5), np.arange(5) + 1.0) == pytest.approx(1)
    assert paired_p(np.ones(4), np.ones(4)) == 1
    row = effect(SIZE, np.stack([first, second], axis=1), left_out=1)
    assert (row["n"], row["left out"], row["first"], row["second"]) == (3, 1, 4, 2)


def test_what_the_captions_bring_by_hand():
    learned = {"large / small": np.array([4.0, 5, 6]), "right / left": np.ones(3)}
    (row,) = beyond(learned, {"large / small": np.array([1.0, 2, 3])})
    # All three above all three: one of the 20 ways to pick 3 of 6.
    assert row == {"words": "large / small", "with": 5, "without": 2, "p": pytest.approx(1 / 20)}
    ((same,), (swapped,)) = (
        beyond({"a": np.array(first)}, {"a": np.array(second)})
        for first, second in (([1.0, 4], [2.0, 3]), ([1.0, 2], [3.0, 4]))
    )
    assert same["p"] > 0.5 and swapped["p"] == pytest.approx(1)


def test_words_are_found_again_in_the_images():
    large, small = disc(0.5, 0.35), disc(0.5, 0.15)
    flat = np.full((96, 96, 3), 200, np.uint8)
    pairs = [(large, small), (large, flat), (None, small)]
    values, left_out = values_of(SIZE, pairs)
    assert left_out == 1 and values.shape == (2, 2)
    assert values[0] == pytest.approx([np.pi * 0.35**2, np.pi * 0.15**2], rel=0.15)
    assert values[1, 1] == 0
    assert values_of(PLACE, pairs)[1] == 2
    # Tone needs no region.
    assert values_of(TONE, [(large, flat)])[1] == 0


def test_directions_agree_with_the_words_in_drawn_images():
    reads = {contrast.name: contrast.read for contrast in CONTRASTS}
    dark = measure(disc(0.3, 0.2, (60, 35, 25))).numbers
    pink = measure(disc(0.7, 0.2, (220, 130, 130))).numbers
    assert reads["pink / dark brown"](pink) > reads["pink / dark brown"](dark)
    for name in ("lower right / upper left", "right / left"):
        assert reads[name](pink) > reads[name](dark)
