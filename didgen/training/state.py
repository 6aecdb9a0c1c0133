"""The saved state of a training: written whole or not at all, and read back exactly.

A folder `step-0000100` holds a safetensors file for each part of the training, one more for the
history, the numbers of each step, and `state.json` with what else there is. The history of a long
training has millions of rows, which as JSON would take longer to write than many steps to train.
No generator is saved: what a step draws follows from the seed and the step's number.
"""

import contextlib
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from didgen.runtime.files import atomic_directory, read_json, write_json
from didgen.training.processes import spread_as, whole

LOGGER = logging.getLogger(__name__)
_NAME = re.compile(r"step-\d{7,}")
# A step's numbers by name, among them "step", counted from 1, and "seconds" of training so far.
Row = dict[str, float]


class BrokenState(ValueError):
    """A saved state cannot be read, or belongs to another training."""


class Stateful(Protocol):
    """A part of a training beside networks and optimisers: its state is a flat dictionary.

    Values are tensors, or what JSON can hold.
    """

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> object: ...


# What a training changes, by name (not "history"). Of a network, buffers and the weights that are
# trained are kept.
Parts = Mapping[str, nn.Module | Optimizer | Stateful]


def save_state(parts: Parts, history: list[Row], folder: Path, writes: bool = True) -> None:
    """Write the state after the history's last step, then remove the older ones.

    Where weights are sharded every process must call it, and only one `writes`.
    """
    states = {name: _state_of(part) for name, part in parts.items()}
    if not writes:
        for state in states.values():
            for value in state.values():
                whole(value)
        return
    newest = folder / f"step-{len(history):07d}"
    with atomic_directory(newest) as place:
        numbers = {}
        for name, state in states.items():
            tensors = {key: _plain(v) for key, v in state.items() if isinstance(v, Tensor)}
            save_file(tensors, place / f"{name}.safetensors")
            numbers[name] = {key: v for key, v in state.items() if key not in tensors}
        names, columns = _columns(history)
        save_arrays(columns, place / "history.safetensors")
        write_json(place / "state.json", {"history": names, "numbers": numbers})
    # Older states go only after the new one has its name: a kill at any moment leaves one whole.
    for older in _saved(folder):
        if older != newest:
            _remove(older)


def resume_state(parts: Parts, folder: Path | None, steps: int) -> list[Row]:
    """Load the newest state that is not beyond `steps`; returns its history, empty without one.

    Raises: BrokenState.
    """
    if folder is None:
        return []
    # A longer training cannot be undone: its state is no start for a shorter one.
    saved = [place for place in _saved(folder) if int(place.name.removeprefix("step-")) <= steps]
    if not saved:
        return []
    place = saved[-1]
    try:
        kept = read_json(place / "state.json")
        for name, part in parts.items():
            tensors = load_file(place / f"{name}.safetensors")
            _load(part, {**tensors, **kept["numbers"][name]})
        history = _rows(kept["history"], load_arrays(place / "history.safetensors"))
        if len(history) != int(place.name.removeprefix("step-")):
            raise ValueError(f"its history has {len(history)} steps")
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise BrokenState(
            f"{place}: this saved state cannot be continued from ({error}); delete the folder to "
            "start this training anew"
        ) from error
    LOGGER.info("continuing after step %d of %d", len(history), steps)
    return history


def remove_states(folder: Path) -> None:
    """Delete a training's saved states, and the folder where nothing else is in it."""
    for place in _saved(folder):
        _remove(place)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _saved(folder: Path) -> list[Path]:
    """What is named as a state, the oldest first."""
    return sorted(place for place in folder.glob("step-*") if _NAME.fullmatch(place.name))


def _remove(place: Path) -> None:
    """Delete what `save_state` wrote there, and the folder where nothing else is in it."""
    try:
        ours = read_json(place / "state.json").keys() == {"history", "numbers"}
    except (OSError, ValueError, AttributeError):
        return
    if not ours or place.is_symlink():
        return
    for file in place.glob("*.safetensors"):
        file.unlink()
    # Last, for it shows whose folder this is.
    (place / "state.json").unlink()
    with contextlib.suppress(OSError):
        place.rmdir()


def _columns(history: list[Row]) -> tuple[list[list[str]], dict[str, np.ndarray]]:
    """The rows as columns: those that have the same names and types are a table.

    Returns each table's names, and arrays: "table" (N,), the table of each row, and "0.loss" and
    the like, int64 or float64.
    """
    tables: dict[tuple[object, ...], tuple[int, list[Row]]] = {}
    order = []
    for row in history:
        number, rows = tables.setdefault((*row, *map(type, row.values())), (len(tables), []))
        order.append(number)
        rows.append(row)
    names = [list(rows[0]) for _, rows in tables.values()]
    columns = {
        f"{number}.{name}": np.array([row[name] for row in rows])
        for number, rows in tables.values()
        for name in rows[0]
    }
    return names, {"table": np.array(order, np.int32), **columns}


def _rows(names: list[list[str]], columns: dict[str, np.ndarray]) -> list[Row]:
    """The rows that `_columns` was given."""
    history = np.empty(len(columns["table"]), object)
    for number, own in enumerate(names):
        values = zip(*(columns[f"{number}.{name}"].tolist() for name in own), strict=True)
        history[columns["table"] == number] = [dict(zip(own, row, strict=True)) for row in values]
    return history.tolist()


def _state_of(part: nn.Module | Optimizer | Stateful) -> dict[str, Any]:
    if isinstance(part, nn.Module):
        return dict(_trained(part))
    if isinstance(part, Optimizer):
        entries = part.state_dict()["state"]
        return {f"{n}.{key}": value for n, entry in entries.items() for key, value in entry.items()}
    return part.state_dict()


def _load(part: nn.Module | Optimizer | Stateful, state: dict[str, Any]) -> None:
    if isinstance(part, nn.Module):
        copy_tensors(state, _trained(part))
    elif isinstance(part, Optimizer):
        _load_optimizer(part, state)
    else:
        part.load_state_dict(state)


def _load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    entries: dict[int, dict[str, Any]] = {}
    for name, value in state.items():
        number, _, key = name.partition(".")
        own = parameters[int(number)]
        if isinstance(value, Tensor) and value.shape == own.shape:
            value = spread_as(value, own)
        entries.setdefault(int(number), {})[key] = value
    # Rates and the like are set anew at every step.
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": entries, "param_groups": groups})


def _trained(module: nn.Module) -> dict[str, Tensor]:
    """Buffers, and the parameters that are trained: frozen ones come from where they came from."""
    kept = module.state_dict(keep_vars=True)
    buffers = {name: value for name, value in module.named_buffers() if name in kept}
    return {n: p for n, p in module.named_parameters() if p.requires_grad} | buffers


@torch.no_grad()
def copy_tensors(saved: Mapping[str, Tensor], into: Mapping[str, Tensor]) -> None:
    """Copy tensors by name. Raises: ValueError for other names or shapes."""
    if saved.keys() != into.keys():
        odd = sorted(saved.keys() ^ into.keys())
        raise ValueError(f"{len(odd)} weights are on one side only, the first is {odd[0]}")
    for name, value in saved.items():
        if value.shape != into[name].shape:
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}, expected {tuple(into[name].shape)}"
            )
        into[name].copy_(spread_as(value, into[name]))


def _plain(value: Tensor) -> Tensor:
    # Not all sharded ones in the memory of one device, which may hold no more than a share.
    return whole(value.detach()).cpu().contiguous()
