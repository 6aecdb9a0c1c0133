"""What every method of synthesis promises, so that comparisons are fair by construction."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, TypedDict, TypeVar

import numpy as np
import pandas as pd

from didgen.settings.methods import METHODS

T = TypeVar("T")

# The module of each method in `METHODS`, imported on use.
CODE = {
    "didgen": "didgen.methods.didgen.method",
    "dreambooth": "didgen.methods.dreambooth",
    "plain": "didgen.methods.plain",
    "prefix": "didgen.methods.didgen.method",
    "sl_stylegan": "didgen.methods.sl_stylegan",
    "pgan": "didgen.methods.pgan",
    "pix2pixhd": "didgen.methods.pix2pixhd",
    "warp": "didgen.methods.warp",
    "attention_refocusing": "didgen.methods.attention_refocusing",
    "controlnet": "didgen.methods.controlnet",
    "zestguide": "didgen.methods.zestguide",
}


@dataclass(frozen=True)
class Request:
    """One image to make. `mask`: bool (H, W) layout to follow, or None.

    `caption` is the DermPrompt. `parent_ids`: the training images that caption and mask are from,
    the one that the label is from first.
    """

    id: str
    label: str
    caption: str
    seed: int
    mask: np.ndarray | None = None
    parent_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sample:
    """One made image: uint8 (H, W, 3), its lesion mask bool (H, W) if it has one, and scores.

    `failure` says why the image must not be used, or is "". `further_parents`: training images
    beside the request's that the method drew from.
    """

    request: Request
    image: np.ndarray
    mask: np.ndarray | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    failure: str = ""
    further_parents: tuple[str, ...] = ()


class Budget(TypedDict):
    """What a training took, for comparisons at equal effort: the file `BUDGET` of its folder.

    parameters: that were trained, of all models. steps: of the optimiser, of all models together.
    images: that they saw, counting each as often as it was seen. departures: from the method's
    source, in sentences.
    """

    parameters: int
    steps: int
    images: int
    departures: list[str]


class Synthesizer(Protocol):
    """A trained method, ready to make images.

    checkpoint: digest of what the images are made from, which each row of a set names.
    version: libraries whose version the bytes of an image may depend on.
    passes: passes through a network per image, the unit of its cost; 0: no network.
    memory_gb: what its networks' weights take in each process.
    """

    checkpoint: str
    version: str
    passes: int
    memory_gb: float

    def check(self, requests: Sequence[Request]) -> None:
        """Check all requests before any is made. Raises: `ValueError` for one that cannot be."""

    def synthesize(self, requests: Sequence[Request]) -> list[Sample]:
        """Make one sample per request, in order; each depends on its own request alone."""


class Code(Protocol):
    """The module of a method."""

    def train(self, data: pd.DataFrame, config: Any) -> None:
        """Write the folder `config.out`; interrupted, it resumes from `config.state`. Only of a
        method that has a training of its own.

        data: id, image and mask (paths; no mask: None), label, caption, lesion_id and patient_id of
        the training images. config: that of the stage `finetune` or `train`, whose `own` has the
        method's settings. The folder says what the training was in `BUDGET`.
        """

    def load(self, folder: Path, config: Any, device: str) -> Synthesizer:
        """Open what `train` wrote. config: that of the stage `images` or `pairs`, whose `own` has
        the method's settings, and `backbone` the fine-tuned one if it was trained on one.
        """


def load_method(name: str) -> Code:
    """Import a method's module. Raises: `ValueError` for an unknown name."""
    if name not in METHODS:
        raise ValueError(f"found method {name!r}, expected one of {', '.join(METHODS)}")
    return importlib.import_module(CODE[name])


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
