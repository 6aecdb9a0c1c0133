"""Trained networks in files: weights, and a card that says how to build the network again."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model, save_model
from torch import nn

from didgen.runtime.files import atomic_path

T = TypeVar("T")


class SavedNetworkError(ValueError):
    """A file that is not a network saved here; the message says which and what to do."""


def save_network(path: Path, model: nn.Module, kind: str, card: Any) -> None:
    """Write weights and card, a dataclass, into one file; `kind` names the card in its header.

    Not smp's `save_pretrained`: that writes a folder, and not all of these networks are smp's.
    """
    with atomic_path(path) as temporary:
        save_model(model, str(temporary), metadata={kind: json.dumps(asdict(card))})


def load_network(
    path: Path, kind: str, stage: str, build: Callable[[dict[str, Any]], tuple[nn.Module, T]]
) -> T:
    """Let `build` make a network of the card's values, and load its weights, on the CPU.

    `stage`: the one that saves such files. Returns what `build` gives beside the network, which is
    in evaluation mode then. Raises: `SavedNetworkError` when the file is missing or is something
    else.
    """
    if not path.is_file():
        raise SavedNetworkError(f"{path}: no such file; run the {stage} stage first")
    try:
        with safe_open(path, "pt") as opened:
            text = (opened.metadata() or {}).get(kind)
    except SafetensorError as error:
        raise SavedNetworkError(
            f"{path}: found no readable safetensors file ({error}); run the {stage} stage again"
        ) from error
    if text is None:
        raise SavedNetworkError(
            f"{path}: found weights that do not say how they were trained, expected those of the "
            f"{stage} stage; run it again"
        )
    try:
        network, built = build(json.loads(text))
        load_model(network, path)
    # RuntimeError: of PyTorch for weights of another network; of Python for text nested too deeply.
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise SavedNetworkError(
            f"{path}: what it says of its network does not fit ({error}); run the {stage} stage "
            "again"
        ) from error
    network.eval()
    return built
