"""What a language model is asked about an image, and how its answer is read.

The model sees the image alone: no label, no mask. What it is asked follows from `Attributes`, so
that every model fills the same vocabulary.
"""

import dataclasses
import json
import reprlib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from didgen.captions.attributes import MEDIUM_BELOW, SMALL_BELOW, Attributes
from didgen.captions.captioner import Question
from didgen.captions.condense import clean, reword
from didgen.captions.diversity import n_grams, words_of
from didgen.captions.image_file import ImageFile
from didgen.captions.sentence import clauses_of

# Known from elsewhere, so never asked.
GIVEN = ("diagnosis",)
SYSTEM = (
    "You describe dermoscopic images for a database, in fixed words. State only what can be seen "
    "in the image. Make no diagnosis."
)
TASK = (
    "Describe this dermoscopic image of one skin lesion. Answer with one JSON object that has "
    "exactly these keys, in this order, each with one of the listed values:"
)
CLOSING = (
    "null means that it cannot be told from the image; an empty list means that none is present. "
    "Name nothing twice. Answer with the JSON object alone."
)
SENTENCE_SYSTEM = "You write captions of dermoscopic images, each of one short sentence."
SENTENCE_TASK = (
    "Write these findings as one sentence of at most 40 words. Say nothing else, and do not use "
    'the words "lesion" and "skin". Answer with one JSON object: {"sentence": "..."}.'
)
# What the vocabulary's thresholds say, in words that a model can follow.
HINTS = {
    "size": f"small: below {SMALL_BELOW:.0%} of the image's area, large: above {MEDIUM_BELOW:.0%}",
    "position": "where in the image the lesion's center lies",
    "colors": "colors of the lesion, the one that covers most of it first",
    "symmetry": "whether both halves of the lesion's outline match, along two axes",
    "border": "whether the lesion ends abruptly or fades into the skin",
    "skin_tone": "color of the skin around the lesion",
    "hair": "how much hair is seen",
    "artifacts": "other marks in the image",
}
# A sentence with as many words in a row of the instructions has taken them for its subject.
REPEATED_WORDS = 5
# Letters; a text of many thousand would take seconds to condense.
LONGEST_SENTENCE = 10_000
# Faults that a refusal names; a hostile answer may have a hundred thousand.
MOST_FAULTS = 10
_BOUNDS = ("minItems", "maxItems", "minLength", "maxLength")
_KEPT = ("type", "enum", "const", "anyOf", "items", *_BOUNDS)


class ClaimError(ValueError):
    """An answer that is not what was asked for; the message says how."""


def claim_schema() -> dict[str, Any]:
    """The JSON schema of an answer: every attribute that is asked for, all required, no others."""
    schema = Attributes.model_json_schema()
    shared = schema.get("$defs", {})
    properties = {
        name: _plain(node, shared)
        for name, node in schema["properties"].items()
        if name not in GIVEN
    }
    for node in properties.values():
        # No attribute lists more words than there are.
        if node.get("type") == "array":
            node.setdefault("maxItems", len(node["items"].get("enum", ())) or 1)
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _plain(node: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    """A schema's node without references, defaults and texts."""
    if "$ref" in node:
        node = {**shared[node["$ref"].rpartition("/")[2]], **node}
    plain = {key: node[key] for key in _KEPT if key in node}
    if "anyOf" in plain:
        plain["anyOf"] = [_plain(option, shared) for option in plain["anyOf"]]
    if "items" in plain:
        plain["items"] = _plain(plain["items"], shared)
    return plain


def describe_question(image: ImageFile, max_tokens: int = 1024) -> Question:
    """The question that asks for an image's attributes."""
    schema = claim_schema()
    lines = [
        f'"{name}" ({_meaning(name)}): {choices(node)}'
        for name, node in schema["properties"].items()
    ]
    return Question(
        system=SYSTEM,
        text="\n".join([TASK, *lines, CLOSING]),
        schema=schema,
        image=image,
        max_tokens=max_tokens,
    )


def _meaning(name: str) -> str:
    return HINTS.get(name) or Attributes.model_fields[name].description or name.replace("_", " ")


def choices(node: Mapping[str, Any]) -> str:
    """The values that a property may have, as JSON and in words."""
    if "anyOf" in node:
        return " or ".join(choices(option) for option in node["anyOf"])
    if "enum" in node or "const" in node:
        return ", ".join(json.dumps(word) for word in node.get("enum", (node.get("const"),)))
    if node.get("type") == "array":
        return f"list of at most {node['maxItems']} of {choices(node['items'])}"
    return {"boolean": "true, false"}.get(node.get("type", ""), node.get("type", ""))


def read_claims(text: str, label: str | None) -> Attributes:
    """The attributes that an answer claims, with the known label as diagnosis.

    Text around the JSON object is ignored, and a word that a list names twice counts once.
    Raises: `ClaimError` for anything else that departs from the schema.
    """
    claims = _object_in(text)
    wanted, found = set(Attributes.model_fields) - set(GIVEN), set(claims)
    if found != wanted:
        unknown = reprlib.repr(sorted(found - wanted))
        raise ClaimError(f"missing keys: {sorted(wanted - found)}, unknown keys: {unknown}")
    once = {
        key: _without_repeats(value) if isinstance(value, list) else value
        for key, value in claims.items()
    }
    try:
        return Attributes.model_validate({**once, "diagnosis": label})
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}"
            for one in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        more = f"; and {len(faults) - MOST_FAULTS} more" if len(faults) > MOST_FAULTS else ""
        raise ClaimError("; ".join(faults[:MOST_FAULTS]) + more) from None


def _object_in(text: str) -> dict[str, Any]:
    """The JSON object of an answer; what stands around it is ignored. Raises: `ClaimError`."""
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        raise ClaimError("it holds no JSON object")
    try:
        found = json.loads(text[start : end + 1])
        # No file can hold half a surrogate pair, which JSON can.
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ClaimError("it holds half a surrogate pair, which is no letter") from None
    except ValueError as error:
        raise ClaimError(f"it is no valid JSON ({error})") from None
    except RecursionError:
        raise ClaimError("it is nested too deeply") from None
    return found


def sentence_question(attributes: Attributes, max_length: int = 300) -> Question:
    """The question that asks for one sentence from attributes; no image is shown with it."""
    clauses = "; ".join(clauses_of(attributes))
    return Question(
        system=SENTENCE_SYSTEM,
        text=f"Findings: {clauses}.\n{SENTENCE_TASK}",
        schema={
            "type": "object",
            "properties": {"sentence": {"type": "string", "minLength": 1, "maxLength": max_length}},
            "required": ["sentence"],
            "additionalProperties": False,
        },
    )


def shorter_question(question: Question, text: str, fault: str) -> Question:
    """The question for a sentence once more, with the sentence that does not fit, and why."""
    told = f"{question.text}\nThis sentence cannot be used, for {fault}: {text}"
    return dataclasses.replace(question, text=told)


def read_sentence(text: str) -> str:
    """The sentence of an answer; text around the JSON object is ignored.

    Raises: `ClaimError` when it holds none, an empty one, or one that repeats the question.
    """
    sentence = _object_in(text).get("sentence")
    if not isinstance(sentence, str):
        raise ClaimError('it holds no text under "sentence"')
    if len(sentence) > LONGEST_SENTENCE:
        raise ClaimError(f"its sentence has {len(sentence)} letters")
    if not reword(clean(sentence))[0]:
        raise ClaimError("its sentence is empty")
    if _repeats_the_question(sentence):
        raise ClaimError("its sentence repeats the question")
    return sentence


def _repeats_the_question(sentence: str) -> bool:
    told = n_grams(words_of(f"{SENTENCE_SYSTEM} {SENTENCE_TASK}"), REPEATED_WORDS)
    said = n_grams(words_of(sentence), REPEATED_WORDS)
    return sentence.lower().startswith("findings:") or not set(told).isdisjoint(said)


def _without_repeats(words: list[Any]) -> list[Any]:
    # By their JSON: they may be anything, also lists, which are no keys.
    return list({json.dumps(word): word for word in words}.values())


def ask_again(question: Question, fault: str) -> Question:
    """The question once more, with what was wrong with the answer."""
    text = f"{question.text}\nAn earlier answer was refused: {fault}. Follow the format exactly."
    return dataclasses.replace(question, text=text)
