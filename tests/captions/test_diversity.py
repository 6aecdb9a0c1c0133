import numpy as np
import pytest

from didgen.captions.diversity import (
    SeenCaptions,
    bleu,
    distinct_n,
    diversity,
    self_bleu,
    vocabulary_size,
    word_overlap,
    words_of,
)

CAT = "The cat sat on the mat."


def test_words_keep_hyphens_and_lose_case_and_points():
    assert words_of("A Blue-gray spot, 2 mm.") == ["a", "blue-gray", "spot", "2", "mm"]


def test_vocabulary_and_distinct_n_by_hand():
    captions = ["a dark spot", "a dark dark spot"]
    assert vocabulary_size(captions) == 3
    assert distinct_n(captions, 1) == pytest.approx(3 / 7)
    # a-dark, dark-spot; a-dark, dark-dark, dark-spot
    assert distinct_n(captions, 2) == pytest.approx(3 / 5)
    assert distinct_n(captions, 5) == 0
    assert distinct_n([], 1) == 0


def test_bleu_by_hand():
    # 5 of 6 words, (3 + 1) of (5 + 1) pairs, (1 + 1) of (4 + 1), (0 + 1) of (3 + 1); same length.
    expected = (5 / 6 * 4 / 6 * 2 / 5 * 1 / 4) ** 0.25
    assert bleu(CAT, ["The cat is on the mat."]) == pytest.approx(expected)
    assert bleu(CAT, [CAT]) == pytest.approx(1)
    assert bleu(CAT, ["A dog."]) == 0
    assert bleu("", [CAT]) == bleu(CAT, []) == 0
    # Three of six words: all match, but the text is short.
    assert bleu("The cat sat", [CAT], max_order=1) == pytest.approx(np.exp(1 - 6 / 3))
    # The closest length counts, not the nearest content.
    assert bleu("The cat sat", [CAT, "A dog ran"], max_order=1) == pytest.approx(1)
    # A word that stands once in a reference is matched once.
    assert bleu("the the the", ["the cat sat"], max_order=1) == pytest.approx(1 / 3)


def test_self_bleu_is_the_mean_against_all_others():
    captions = [
        CAT, CAT, "The dog sat on the red mat.", "A cat, a cat and a dog.", "Nothing here at all.",
        "The the the cat.",
    ]  # fmt: skip
    each = [bleu(one, captions[:k] + captions[k + 1 :]) for k, one in enumerate(captions)]
    assert self_bleu(captions) == pytest.approx(np.mean(each))
    assert self_bleu([CAT, CAT]) == pytest.approx(1)
    assert self_bleu([CAT, "Nothing here at all."]) == 0
    assert self_bleu([CAT]) == 0


def test_summary():
    found = diversity([CAT, CAT, "A dog."])
    assert (found["count"], found["distinct_captions"], found["vocabulary"]) == (3, 2, 7)
    assert found["mean_words"] == pytest.approx(14 / 3)
    assert diversity([])["mean_words"] == 0


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
