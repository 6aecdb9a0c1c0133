import pytest
from pydantic import ValidationError

from didgen.captions.attributes import (
    DERMOSCOPIC,
    GRID,
    LISTS,
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
        {"network": "none"},
        {"vessels": ("comma", "dotted", "crown")},
        {"vessels": ("comma", "comma")},
        {"structures": ("scale", "scale")},
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


def leaves(node, path=""):
    """Every part of a JSON schema that says what a value may be."""
    if "$ref" in node or "anyOf" in node:
        for option in node.get("anyOf", []):
            yield from leaves(option, path)
    elif node.get("type") == "array":
        assert node.get("maxItems", len(node["items"].get("enum", []))) > 0, path
        yield from leaves(node["items"], path)
    elif node.get("type") != "null":
        yield path, node


def test_all_that_is_asked_for_is_a_choice_of_plain_words():
    schema = Attributes.model_json_schema()
    found = [leaf for n, node in schema["properties"].items() for leaf in leaves(node, n)]
    assert {name for name, _ in found} == set(Attributes.model_fields)
    for name, leaf in found:
        if name == "diagnosis":  # known from elsewhere, never asked for
            continue
        words = leaf.get("enum", [leaf.get("const")])
        assert words and all(words), name
        assert all(w.isascii() and w.isprintable() and not set(w) & set('\\"') for w in words)


def test_measurement_leaves_the_features_of_checklists_empty():
    plain = Attributes(diagnosis="MEL", size="small")
    assert all(not getattr(plain, name) for name in DERMOSCOPIC)
    assert set(DERMOSCOPIC) < set(Attributes.model_fields)
    lists = [n for n, f in Attributes.model_fields.items() if isinstance(f.default, tuple)]
    assert sorted(LISTS) == sorted(lists)


def test_every_value_is_defined_in_the_documentation():
    from pathlib import Path

    text = (Path(__file__).parents[2] / "docs/dermprompt.md").read_text()
    for name in DERMOSCOPIC:
        assert f"\n| {name} | " in text
    for name, node in Attributes.model_json_schema()["properties"].items():
        for _, leaf in leaves(node):
            if name != "diagnosis":
                for word in leaf.get("enum", [leaf.get("const")]):
                    assert word in text, (name, word)


ROW = {
    "id": "a", "caption": "?", "mask_source": "given", "diagnosis": "MEL", "size": "large",
    "shape": "irregular", "symmetry": "asymmetric", "border": "sharp",
    "colors": "dark brown; black", "position": "center", "skin_tone": "light", "hair": "some",
    "artifacts": "ruler",
}  # fmt: skip


def test_rows_are_read_as_they_are_written():
    assert Attributes.from_row(ROW).artifacts == ("ruler",)
    bare = ROW | {"diagnosis": "", "colors": "", "skin_tone": "", "artifacts": "", "size": ""}
    assert Attributes.from_row(bare) == Attributes(
        shape="irregular", symmetry="asymmetric", border="sharp", position="center", hair="some"
    )


def test_captions_without_attributes_are_refused():
    with pytest.raises(ValueError, match="lacks the columns diagnosis, size"):
        Attributes.from_row({"id": "a", "caption": "A spot."})


def test_features_of_checklists_are_read_and_may_be_missing_as_columns():
    more = {"network": "atypical", "vessels": "dotted; comma", "structures": "", "veil": ""}
    found = Attributes.from_row(ROW | more)
    assert (found.network, found.vessels, found.structures) == ("atypical", ("dotted", "comma"), ())
    assert found.veil is None and found.streaks is None
    assert Attributes.from_row(ROW).network is None


def test_rows_are_written_as_they_are_read():
    attributes = Attributes.from_row(ROW | {"vessels": "dotted; comma"})
    written = attributes.to_row()
    assert written["colors"] == "dark brown; black" and written["veil"] == ""
    assert Attributes.from_row(written) == attributes


def test_a_word_that_no_caption_can_have_is_named_with_its_image():
    with pytest.raises(
        ValueError, match=r"image 'a': size: .*'small'.*run the caption stage"
    ) as error:
        Attributes.from_row(ROW | {"size": "huge"})
    assert type(error.value) is ValueError
