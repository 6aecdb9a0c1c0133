import numpy as np
import pytest

from didgen.captions.novelty import SeenCaptions, word_overlap

ONE = "A small round nevus, dark brown, sharp border, at the top."
TURNED = "At the top, a nevus with sharp border, round, small, brown dark."


def test_overlap_by_hand():
    assert word_overlap(ONE, TURNED) == 1
    # small round nevus dark brown sharp top | large instead of small
    assert word_overlap(ONE, ONE.replace("small", "large")) == pytest.approx(6 / 8)
    assert word_overlap("light brown and dark brown", "light brown") == pytest.approx(2 / 4)
    assert word_overlap("tan", "black") == 0
    assert word_overlap("a", "the") == 1


def test_the_closest_of_many_is_that_of_the_pairs():
    rng = np.random.default_rng(0)
    words = [f"w{k}" for k in range(90)]
    captions = [" ".join(rng.choice(words, 8)) for _ in range(60)]
    seen = SeenCaptions()
    assert seen.closest(ONE) == 0
    for k, caption in enumerate(captions):
        if k:
            expected = max(word_overlap(caption, other) for other in captions[:k])
            assert seen.closest(caption) == pytest.approx(expected)
        seen.add(caption)
    assert len(seen) == 60
    assert seen.closest(captions[7]) == 1
    assert seen.closest("the unknown") == 0
