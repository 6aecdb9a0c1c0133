"""Language models: what they are sent, what comes back, and the table of those that can caption.

`measure`, the captioner without a model, is `didgen.captions.measure`. All others describe an image
in JSON, and the sentence is made from it in the same way for all.
"""

import dataclasses
import hashlib
import importlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from didgen.data.images import read_image
from didgen.runtime.files import sha256_file

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
class ImageFile:
    """An image for a model, named by its contents and decoded only where it is needed.

    sha256: of the file's bytes; side: pixels that the longer side may have at most.
    """

    path: Path
    sha256: str
    side: int

    @classmethod
    def of(cls, path: Path, side: int) -> "ImageFile":
        """The image file at a path, hashed now. Raises: `OSError`."""
        return cls(Path(path), sha256_file(path), side)

    def pixels(self) -> np.ndarray:
        """The image, uint8 (H, W, 3) sRGB, upright, shrunk to `side`. Raises: `ImageError`."""
        image = Image.fromarray(read_image(self.path))
        scale = self.side / max(image.size)
        if scale < 1:
            size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            image = image.resize(size, Image.Resampling.LANCZOS)
        return np.asarray(image)

    def png(self) -> bytes:
        """The image as PNG, without anything that its file may say of the patient."""
        stream = io.BytesIO()
        Image.fromarray(self.pixels()).save(stream, format="PNG", compress_level=4)
        return stream.getvalue()


@dataclass(frozen=True)
class ChatRequest:
    """What a model is sent: a system text, a text and, optional, an image.

    `schema`: JSON schema that the response follows by construction where the model can be
    constrained; None for free text. At `temperature` 0 the response does not depend on `seed`.
    """

    system: str
    text: str
    schema: Mapping[str, Any] | None = None
    image: ImageFile | None = None
    max_tokens: int = 1024
    temperature: float = 0.0
    seed: int = 0

    def digest(self) -> str:
        """SHA-256 of all that decides the response; the image counts by contents, not by name.

        Responses on disk are found by it: fields must keep their names.
        """
        parts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        parts["image"] = self.image and [self.image.sha256, self.image.side]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class ChatResponse:
    """A model's whole response (it ended by itself), its tokens and the seconds it took.

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
    """Why a request has no response."""

    reason: str


Result = ChatResponse | Failure


class LanguageModel(Protocol):
    """Completes requests, with or without an image.

    A class in `CAPTIONERS` also has `identify(**settings) -> str`, which names the weights and the
    prompt format without loading them: equal names promise equal responses at temperature 0.
    """

    def complete(self, requests: Iterable[ChatRequest]) -> Iterator[tuple[int, Result]]:
        """Give each request's index with its result as soon as it is there, in any order.

        Requests are taken one by one as they are needed, so a generator need not hold all images.
        Raises: `ModelError` when no request can be completed.
        """

    def close(self) -> None:
        """Free what the model holds."""


def load_captioner(name: str) -> Any:
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
