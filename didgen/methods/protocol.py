"""What every method of synthesis promises, so that comparisons are fair by construction."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Protocol, TypeVar

import numpy as np

T = TypeVar("T")

# name -> "module:attribute", imported on use.
METHODS: dict[str, str] = {
    "didgen": "didgen.methods.didgen.sampler:DidgenSynthesizer",
}


@dataclass(frozen=True)
class Request:
    """One image to make. `mask`: bool (H, W) layout to follow, or None for text alone.

    `caption` is the DermPrompt, `prompt` the whole text that the model reads.
    """

    id: str
    label: str
    caption: str
    prompt: str
    seed: int
    mask: np.ndarray | None = None
    parent_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sample:
    """One made image: uint8 (H, W, 3), its lesion mask bool (H, W) if it has one, and scores.

    `failure` says why the image must not be used, or is "".
    """

    request: Request
    image: np.ndarray
    mask: np.ndarray | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    failure: str = ""


class Synthesizer(Protocol):
    """The one verb of a method."""

    def synthesize(self, requests: Sequence[Request]) -> list[Sample]:
        """Make one sample a request, in order; each depends on its own request alone."""


def load_method(name: str) -> type:
    """Import a method's synthesizer class. Raises: `ValueError` for an unknown name."""
    if name not in METHODS:
        raise ValueError(f"no method named {name!r}; known methods are {', '.join(METHODS)}")
    module, attribute = METHODS[name].split(":")
    return getattr(importlib.import_module(module), attribute)


def derive_seed(*parts: object) -> int:
    """A seed in [0, 2^63) that depends on the parts alone: not on shard, batch or order."""
    text = "/".join(map(str, parts))
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big") >> 1


def shard_of(items: Sequence[T], shard: str) -> list[T]:
    """The k-th of n interleaved shards of the items, for `shard` "k/n" or "k-of-n", 1-based."""
    first, _, second = shard.replace("-of-", "/").partition("/")
    if not (first.isdigit() and second.isdigit() and 1 <= int(first) <= int(second)):
        raise ValueError(f"shard: found {shard!r}, expected k/n with 1 <= k <= n, such as 1/4")
    return list(items[int(first) - 1 :: int(second)])
