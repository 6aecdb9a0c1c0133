"""What every language model promises that writes captions, and the table of those known.

`measure`, the captioner without a model, is `didgen.captions.measure`. All others answer questions
about an image in JSON, and the sentence is made from the answer in the same way for all.
"""

import dataclasses
import hashlib
import importlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from didgen.captions.image_file import ImageFile

# name -> "module:attribute", imported on use.
CAPTIONERS: dict[str, str] = {
    "llama_cpp": "didgen.captions.gguf_models:GgufModel",
    "transformers": "didgen.captions.mllama:TransformersModel",
    "openai": "didgen.captions.openai_server:ServerModel",
}


class ModelError(ValueError):
    """A model that cannot be used at all; the message says what to do."""


def one_line(text: str, most: int = 300) -> str:
    """Text from outside as a log may show it: printable, on one line, of at most `most` letters."""
    # Much of a long text may be spaces, yet it need not be read whole.
    start = "".join(letter if letter.isprintable() else " " for letter in text[: 10 * most])
    return " ".join(start.split())[:most]


@dataclass(frozen=True)
class Question:
    """What a model is asked: a system text, a text and, optional, an image.

    `schema`: JSON schema that the answer follows by construction where the model can be
    constrained; None for free text. At `temperature` 0 the answer does not depend on `seed`.
    """

    system: str
    text: str
    schema: Mapping[str, Any] | None = None
    image: ImageFile | None = None
    max_tokens: int = 1024
    temperature: float = 0.0
    seed: int = 0

    def digest(self) -> str:
        """SHA-256 of all that decides the answer; of the image it is the contents, not the name."""
        parts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        parts["image"] = self.image and [self.image.sha256, self.image.side]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Answer:
    """A model's whole answer (it ended by itself), its tokens and the seconds it took.

    Half a surrogate pair, which no file can hold, becomes a question mark.
    """

    text: str
    prompt_tokens: int = 0
    answer_tokens: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", self.text.encode(errors="replace").decode())


@dataclass(frozen=True)
class Failure:
    """Why a question has no answer."""

    reason: str


Result = Answer | Failure


class LanguageModel(Protocol):
    """Answers questions, with or without an image.

    A class in `CAPTIONERS` also has `identify(**settings) -> str`, which names the weights and the
    prompt format without loading them: equal names promise equal answers at temperature 0.
    """

    def answer(self, questions: Iterable[Question]) -> Iterator[tuple[int, Result]]:
        """Give each question's index with its result as soon as it is there, in any order.

        Questions are taken one by one as they are needed, so a generator need not hold all images.
        Raises: `ModelError` when no question can be answered.
        """

    def close(self) -> None:
        """Free what the model holds."""


def load_captioner(name: str) -> type:
    """Import a captioner's class. Raises: `ModelError` for an unknown name."""
    if name not in CAPTIONERS:
        raise ModelError(
            f"no language model named {name!r}; known are {', '.join(CAPTIONERS)} (and `measure`, "
            "which needs none)"
        )
    return load_attribute(CAPTIONERS[name])


def load_attribute(target: str) -> Any:
    """Import what "module:attribute" names."""
    module, attribute = target.split(":")
    return getattr(importlib.import_module(module), attribute)
