import pytest
from pydantic import ValidationError

from didgen.captions.attributes import (
    GRID,
    Attributes,
    flip_horizontal,
    position_word,
    size_word,
    skin_tone_word,
)


@pytest.mark.parametrize(
    ("share", "word"),
    [(0.0, "small"), (0.0999, "small"), (0.10, "medium"), (0.2499, "medium"), (0.25, "large")],
)
def test_size_thresholds(share, word):
    assert size_word(share) == word


@pytest.mark.parametrize(
    ("ita", "word"),
    [
        (60, "very light"),
        (55, "light"),
        (41, "intermediate"),
        (28, "tan"),
        (10, "brown"),
        (-30, "dark"),
        (-80, "dark"),
    ],
)
def test_a_limit_belongs_to_the_darker_tone(ita, word):
    assert skin_tone_word(ita) == word


def test_positions_cover_the_grid():
    thirds = (1 / 6, 1 / 2, 5 / 6)
    assert tuple(position_word(r, c) for r in thirds for c in thirds) == GRID
    assert position_word(1.0, 1.0) == "lower right"


def test_flip_swaps_left_and_right_only_and_is_its_own_inverse():
    swapped = {"upper left": "upper right", "left": "right", "lower left": "lower right"}
    swapped |= {b: a for a, b in swapped.items()}
    for position in GRID:
        attributes = Attributes(diagnosis="MEL", position=position, colors=("black",))
        flipped = flip_horizontal(attributes)
        assert flipped.position == swapped.get(position, position)
        assert flipped.model_copy(update={"position": position}) == attributes
        assert flip_horizontal(flipped) == attributes
    assert flip_horizontal(Attributes()).position is None


@pytest.mark.parametrize(
    "words",
    [
        {"shape": "square"},
        {"size": "huge"},
        {"diagnosis": "XYZ"},
        {"colors": ("black", "black")},
        {"colors": ("black", "red", "tan", "white")},
        {"artifacts": ("ink", "ink")},
        {"position": "middle"},
        {"mood": "good"},
    ],
)
def test_words_outside_the_vocabulary_are_refused(words):
    with pytest.raises(ValidationError):
        Attributes(**words)


def test_the_schema_lists_the_vocabulary_for_a_language_model():
    schema = Attributes.model_json_schema()
    assert schema["additionalProperties"] is False
    assert "blue-gray" in str(schema["properties"]["colors"])
    assert "gel bubbles" in str(schema["properties"]["artifacts"])
