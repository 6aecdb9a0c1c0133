"""The saved state of a training: written whole or not at all, and read back exactly.

A folder `step-0000100` holds the weights, the best ones so far, the optimiser's moments and how far
the training is. What is drawn in a step follows from the seed and the step's number.
"""

import contextlib
import logging
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from didgen.runtime.files import atomic_directory, read_json, write_json

LOGGER = logging.getLogger(__name__)


class BrokenState(ValueError):
    """A saved state cannot be read, or belongs to another training."""


class TrainingStopped(SystemExit):
    """Training was asked to end (SIGTERM); its state is saved and the same command continues."""


@dataclass
class Progress:
    """How far a training is.

    `best`: score and minus loss of the best evaluation, empty before the first. `losses`: of the
    steps since the last evaluation. `curves`: a row an evaluation.
    """

    step: int = 0
    seconds: float = 0.0
    best: list[float] = field(default_factory=list)
    best_step: int = 0
    since_best: int = 0
    losses: list[float] = field(default_factory=list)
    curves: list[dict[str, float]] = field(default_factory=list)


Weights = dict[str, Tensor]


def save_state(
    folder: Path,
    model: nn.Module,
    best: Weights | None,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
) -> None:
    """Write the state after the progress's step, then remove older ones."""
    newest = folder / f"step-{progress.step:07d}"
    with atomic_directory(newest) as place:
        save_file(_plain(model.state_dict()), place / "weights.st")
        if best is not None:
            save_file(_plain(best), place / "best.st")
        moments = {
            f"{index}.{key}": value
            for index, entry in optimizer.state_dict()["state"].items()
            for key, value in entry.items()
        }
        save_file(_plain(moments), place / "optimizer.st")
        write_json(place / "progress.json", asdict(progress))
    # Older states go only after the new one has its name: a kill at any moment leaves one whole.
    for older in folder.glob("step-*"):
        if older != newest:
            shutil.rmtree(older)


def resume_state(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[Progress, Weights | None]:
    """Load the newest state into model and optimiser; how far it is, and the best weights so far.

    Without one, a new progress. Raises: `BrokenState`.
    """
    saved = sorted(folder.glob("step-*"))
    if not saved:
        return Progress(), None
    place = saved[-1]
    try:
        progress = Progress(**read_json(place / "progress.json"))
        model.load_state_dict(load_file(place / "weights.st"))
        best = load_file(place / "best.st") if progress.best else None
        entries: dict[int, dict[str, Any]] = {}
        for name, value in load_file(place / "optimizer.st").items():
            index, _, key = name.partition(".")
            entries.setdefault(int(index), {})[key] = value
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": entries, "param_groups": groups})
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise BrokenState(
            f"{place}: this saved state cannot be continued from ({error}); delete the folder to "
            "start this training anew"
        ) from error
    LOGGER.info("continuing after step %d", progress.step)
    return progress, best


def _plain(state: Weights) -> Weights:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


@contextlib.contextmanager
def stop_on_sigterm() -> Iterator[Callable[[], bool]]:
    """Turn SIGTERM into a question asked between steps, so that no step is cut in half."""
    asked: list[bool] = []
    previous = signal.getsignal(signal.SIGTERM)
    try:
        signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    except ValueError:  # not the main thread: the caller handles signals
        yield lambda: False
        return
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGTERM, previous)
