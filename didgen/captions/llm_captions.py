"""Attributes and sentences by a language model: what it is asked, and how its responses are read.

The model sees the image alone: no label, no mask. What it is asked follows from `Attributes`, so
that every model fills the same vocabulary. A response that is not what was asked for is sent back
with its fault.
"""

import dataclasses
import json
import logging
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from didgen.captions.attributes import MEDIUM_BELOW, SMALL_BELOW, Attributes, explain
from didgen.captions.client import ModelClient
from didgen.captions.condense import clean, reword
from didgen.captions.diversity import n_grams, words_of
from didgen.captions.llm import ChatRequest, Failure, ImageFile
from didgen.captions.measure import ImageRow
from didgen.captions.sentence import clauses_of

T = TypeVar("T")
LOGGER = logging.getLogger(__name__)
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
_BOUNDS = ("minItems", "maxItems", "minLength", "maxLength")
_KEPT = ("type", "enum", "const", "anyOf", "items", *_BOUNDS)


class InvalidResponse(ValueError):
    """A response that is not what was asked for; the message says how."""


def response_schema() -> dict[str, Any]:
    """The JSON schema of a response: every attribute that is asked for, all required, no others."""
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


def attributes_request(image: ImageFile) -> ChatRequest:
    """The request for an image's attributes."""
    schema = response_schema()
    lines = [
        f'"{name}" ({_meaning(name)}): {choices(node)}'
        for name, node in schema["properties"].items()
    ]
    return ChatRequest(SYSTEM, "\n".join([TASK, *lines, CLOSING]), schema, image)


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


def parse_attributes(text: str, label: str | None) -> Attributes:
    """The attributes in a response, with the known label as diagnosis.

    Text around the JSON object is ignored, and a word that a list names twice counts once.
    Raises: `InvalidResponse` for anything else that departs from the schema.
    """
    claims = _object_in(text)
    wanted, given = set(Attributes.model_fields) - set(GIVEN), set(claims)
    if given != wanted:
        unknown = reprlib.repr(sorted(given - wanted))
        raise InvalidResponse(f"missing keys: {sorted(wanted - given)}, unknown keys: {unknown}")
    once = {
        # By their JSON: words may be anything, also lists, which are no keys.
        key: list({json.dumps(word): word for word in value}.values())
        if isinstance(value, list)
        else value
        for key, value in claims.items()
    }
    try:
        return Attributes.model_validate({**once, "diagnosis": label})
    except ValidationError as error:
        raise InvalidResponse(explain(error)) from None


def _object_in(text: str) -> dict[str, Any]:
    """The JSON object of a response, without what stands around it. Raises: `InvalidResponse`."""
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        raise InvalidResponse("it holds no JSON object")
    try:
        value = json.loads(text[start : end + 1])
        # No file can hold half a surrogate pair, which JSON can.
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise InvalidResponse("it holds half a surrogate pair, which is no letter") from None
    except ValueError as error:
        raise InvalidResponse(f"it is no valid JSON ({error})") from None
    except RecursionError:
        raise InvalidResponse("it is nested too deeply") from None
    return value


def sentence_request(attributes: Attributes) -> ChatRequest:
    """The request for one sentence from attributes; no image is shown with it."""
    clauses = "; ".join(clauses_of(attributes))
    schema = {
        "type": "object",
        "properties": {"sentence": {"type": "string", "minLength": 1, "maxLength": 300}},
        "required": ["sentence"],
        "additionalProperties": False,
    }
    return ChatRequest(SENTENCE_SYSTEM, f"Findings: {clauses}.\n{SENTENCE_TASK}", schema)


def shorter_request(request: ChatRequest, text: str, fault: str) -> ChatRequest:
    """The request for a sentence once more, with the sentence that does not fit, and why."""
    more = f"{request.text}\nThis sentence cannot be used, for {fault}: {text}"
    return dataclasses.replace(request, text=more)


def parse_sentence(text: str) -> str:
    """The sentence in a response; text around the JSON object is ignored.

    Raises: `InvalidResponse` when it holds none, an empty one, or one that repeats the question.
    """
    sentence = _object_in(text).get("sentence")
    if not isinstance(sentence, str):
        raise InvalidResponse('it holds no text under "sentence"')
    if len(sentence) > LONGEST_SENTENCE:
        raise InvalidResponse(f"its sentence has {len(sentence)} letters")
    if not reword(clean(sentence))[0]:
        raise InvalidResponse("its sentence is empty")
    if _repeats_the_question(sentence):
        raise InvalidResponse("its sentence repeats the question")
    return sentence


def _repeats_the_question(sentence: str) -> bool:
    instructions = n_grams(words_of(f"{SENTENCE_SYSTEM} {SENTENCE_TASK}"), REPEATED_WORDS)
    own = n_grams(words_of(sentence), REPEATED_WORDS)
    return sentence.lower().startswith("findings:") or not set(instructions).isdisjoint(own)


def retry_request(request: ChatRequest, fault: str) -> ChatRequest:
    """The request once more, with what was wrong with the response."""
    more = f"An earlier answer was refused: {fault}. Follow the format exactly."
    return dataclasses.replace(request, text=f"{request.text}\n{more}")


@dataclass(frozen=True)
class Parsed(Generic[T]):
    """What was read of the response to a request, by its index; None with the failure's reason.

    `raw`: the last response as it came.
    """

    index: int
    value: T | None
    raw: str = ""
    failure: str = ""


def describe(
    rows: Sequence[ImageRow], client: ModelClient, image_side: int, tries: int
) -> Iterator[Parsed[Attributes]]:
    """The attributes of each image, in any order; its label, which no model sees, is the diagnosis.

    image_side: longer side in pixels to which images are shrunk. tries: how often a request is
    sent until a response follows the schema. Raises: `ModelError`.
    """
    return _parsed(
        client,
        len(rows),
        lambda k: attributes_request(ImageFile.of(rows[k].image, image_side)),
        lambda k, text: parse_attributes(text, rows[k].label),
        tries,
    )


def word(
    attributes: Sequence[Attributes], client: ModelClient, tries: int
) -> Iterator[Parsed[str]]:
    """One sentence each in the model's words, in any order. Otherwise as `describe`."""
    return _parsed(
        client,
        len(attributes),
        lambda k: sentence_request(attributes[k]),
        lambda _, text: parse_sentence(text),
        tries,
    )


def _parsed(
    client: ModelClient,
    count: int,
    request: Callable[[int], ChatRequest],
    parse: Callable[[int, str], T],
    tries: int,
) -> Iterator[Parsed[T]]:
    """What is read of each response; one that `parse` refuses is sent back with its fault."""
    faults: dict[int, tuple[str, ...]] = dict.fromkeys(range(count), ())
    for attempt in range(1, tries + 1):
        numbers = list(faults)
        refused: dict[int, tuple[str, ...]] = {}
        for index, result in client.send(_with_faults(request(k), faults[k]) for k in numbers):
            k = numbers[index]
            if isinstance(result, Failure):
                yield Parsed(k, None, "", result.reason)
                continue
            try:
                value = parse(k, result.text)
            except InvalidResponse as error:
                if attempt < tries:
                    refused[k] = (*faults[k], str(error))
                else:
                    yield Parsed(k, None, result.text, f"its answer: {error}")
            else:
                yield Parsed(k, value, result.text)
        faults = refused
        if not faults:
            return
        LOGGER.info("%d answers did not follow the schema; asking again", len(faults))


def _with_faults(request: ChatRequest, faults: Sequence[str]) -> ChatRequest:
    for fault in faults:
        request = retry_request(request, fault)
    return request
