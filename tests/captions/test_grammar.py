"""Grammars are run through llguidance, which reads llama.cpp's notation."""

import itertools
import json

import llguidance
import llguidance.gbnf_to_lark
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from didgen.captions.grammar import MAX_LENGTH, SchemaError, to_gbnf
from didgen.captions.llm_captions import response_schema

SCHEMA = {
    "type": "object",
    "properties": {
        "shape": {"anyOf": [{"$ref": "#/$defs/Shape"}, {"type": "null"}]},
        "colors": {
            "type": "array",
            "items": {"enum": ["red", "tan"]},
            "minItems": 1,
            "maxItems": 2,
        },
        "note": {"type": "string", "maxLength": 4},
        "seen": {"type": "boolean"},
    },
    "required": ["shape", "colors", "note", "seen"],
    "additionalProperties": False,
    "$defs": {"Shape": {"enum": ["round", "oval"], "type": "string"}},
}
VALID = {"shape": None, "colors": ["red", "tan"], "note": "a[b]", "seen": True}


def accepts(grammar: str, text: str) -> bool:
    """Whether the grammar allows exactly this text as a whole."""
    vocabulary = llguidance.LLTokenizer("byte")
    lark = llguidance.LLMatcher.grammar_from_lark(llguidance.gbnf_to_lark.gbnf_to_lark(grammar))
    matcher = llguidance.LLMatcher(vocabulary, lark)
    assert not matcher.is_error(), matcher.get_error()
    tokens = vocabulary.tokenize_str(text)
    return matcher.validate_tokens(tokens) == len(tokens) and (
        matcher.consume_tokens(tokens) and matcher.is_accepting()
    )


def test_every_choice_of_values_is_allowed():
    grammar = to_gbnf(SCHEMA)
    shapes, colors = (None, "round", "oval"), (["red"], ["tan"], ["tan", "red"])
    for shape, names, note, seen in itertools.product(shapes, colors, ("", "x.y!"), (True, False)):
        value = {"shape": shape, "colors": names, "note": note, "seen": seen}
        assert accepts(grammar, json.dumps(value)), value


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({**VALID, "shape": "square"}),
        json.dumps({**VALID, "colors": []}),
        json.dumps({**VALID, "colors": ["red"] * 3}),
        json.dumps({**VALID, "note": "five!"}),
        json.dumps({**VALID, "more": 1}),
        json.dumps({key: VALID[key] for key in ("shape", "colors", "note")}),
        json.dumps({key: VALID[key] for key in ("colors", "shape", "note", "seen")}),
        json.dumps(VALID, indent=1),
        json.dumps({**VALID, "note": "\n"}).replace("\\n", "\n"),
        json.dumps({**VALID, "note": '"'}),
        json.dumps(VALID) + " ",
        "",
    ],
)
def test_nothing_else_is_allowed(text):
    assert accepts(to_gbnf(SCHEMA), json.dumps(VALID))
    assert not accepts(to_gbnf(SCHEMA), text)


@pytest.mark.parametrize(("low", "high"), [(0, 0), (0, 1), (0, 3), (1, 1), (2, 3)])
def test_list_lengths(low, high):
    grammar = to_gbnf({"type": "array", "items": {"const": "a"}, "minItems": low, "maxItems": high})
    allowed = [n for n in range(6) if accepts(grammar, json.dumps(["a"] * n))]
    assert allowed == list(range(low, high + 1))


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ({"type": "integer", "minimum": 0}, "write numbers as an enum"),
        ({"enum": []}, "nothing to choose"),
        ({"enum": ["a\\b"]}, "printable ASCII"),
        ({"enum": ["größe"]}, "printable ASCII"),
        ({"type": "string"}, "maxLength None"),
        ({"type": "string", "maxLength": MAX_LENGTH + 1}, "maxLength <= 1000"),
        ({"type": "string", "maxLength": 5, "pattern": "a*"}, "pattern"),
        ({"type": "array", "items": {"const": 1}, "maxItems": 2, "uniqueItems": True}, "unique"),
        ({"type": "array", "items": {"const": 1}, "minItems": 3, "maxItems": 2}, "minItems 3"),
        ({"type": "object", "properties": {"a": {"const": 1}}}, "all required"),
        ({"$ref": "#/$defs/none"}, "does not hold"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, "circle"),
    ],
)
def test_what_cannot_be_expressed_is_refused(schema, fault):
    with pytest.raises(SchemaError, match=fault):
        to_gbnf(schema)


def values_of(node):
    """A strategy of the values that a schema's node allows."""
    if "anyOf" in node:
        return st.one_of([values_of(option) for option in node["anyOf"]])
    if "enum" in node or "const" in node:
        return st.sampled_from(node.get("enum", [node.get("const")]))
    if node["type"] == "array":
        return st.lists(values_of(node["items"]), max_size=node["maxItems"])
    return st.none() if node["type"] == "null" else st.booleans()


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_claims_can_be_written(data):
    schema = response_schema()
    claims = {name: data.draw(values_of(node)) for name, node in schema["properties"].items()}
    assert accepts(to_gbnf(schema), json.dumps(claims))
