"""The saved state of a fine-tuning: written whole or not at all, and read back exactly.

A folder `step-0000100` holds the trained weights, the optimiser's moments, the averaged weights
and the curve so far. Data order, noise and dropout follow from the seed and the step's number.
"""

import logging
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from didgen.methods.didgen.sharding import alike, whole
from didgen.methods.didgen.tuning import Average
from didgen.runtime.files import atomic_directory, read_json, write_json

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepLoss:
    """The losses of one step (Eq. 4 and its two parts) and the gradient's norm."""

    step: int
    loss: float
    loss_rec: float
    loss_attn: float
    lr: float
    grad_norm: float
    seconds: float


class BrokenState(ValueError):
    """A saved state cannot be read, or belongs to another training."""


def save_state(
    unet: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Average | None,
    curve: list[StepLoss],
    state: Path,
    first: bool = True,
) -> None:
    """Write the state after the curve's last step, then remove the older ones.

    Where the weights are sharded every process must call it, and only the `first` writes.
    """
    trained = {n: p for n, p in unet.named_parameters() if p.requires_grad}
    moments, numbers = {}, {}
    for index, entry in optimizer.state_dict()["state"].items():
        for key, value in entry.items():
            if isinstance(value, Tensor):
                moments[f"{index}.{key}"] = value
            else:
                numbers[f"{index}.{key}"] = value
    files = {"unet.st": trained, "optimizer.st": moments}
    if average is not None:
        files["average.st"] = dict(zip(trained, average.values, strict=True))
    if not first:
        for value in (value for tensors in files.values() for value in tensors.values()):
            whole(value)
        return
    newest = state / f"step-{len(curve):07d}"
    with atomic_directory(newest) as folder:
        for name, tensors in files.items():
            save_file({key: _plain(value) for key, value in tensors.items()}, folder / name)
        write_json(folder / "optimizer.json", numbers)
        write_json(folder / "curve.json", [asdict(step) for step in curve])
    # Older states go only after the new one has its name: a kill at any moment leaves one whole.
    for older in state.glob("step-*"):
        if older != newest:
            shutil.rmtree(older)


def _plain(value: Tensor) -> Tensor:
    value = value.detach()
    if isinstance(value, DTensor):
        # Not all of them in the memory of one device, which may hold no more than a share.
        return value.full_tensor().cpu()
    return value.contiguous()


def resume_state(
    unet: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Average | None,
    state: Path,
    steps: int,
) -> list[StepLoss]:
    """Load the newest state that is not beyond `steps` and return its curve; empty without one.

    Raises: BrokenState.
    """
    saved = sorted(state.glob("step-*"))
    # A longer training cannot be undone: its state is no start for a shorter one.
    saved = [folder for folder in saved if int(folder.name.removeprefix("step-")) <= steps]
    if not saved:
        return []
    folder = saved[-1]
    try:
        trained = {n: p for n, p in unet.named_parameters() if p.requires_grad}
        _copy(load_file(folder / "unet.st"), trained)
        if average is not None:
            values = dict(zip(trained, average.values, strict=True))
            _copy(load_file(folder / "average.st"), values)
        entries: dict[int, dict[str, Any]] = {}
        kept = {**load_file(folder / "optimizer.st"), **read_json(folder / "optimizer.json")}
        for name, value in kept.items():
            index, _, key = name.partition(".")
            entries.setdefault(int(index), {})[key] = value
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for index, entry in entries.items():
            for key, value in entry.items():
                if isinstance(value, Tensor) and value.shape == parameters[index].shape:
                    entry[key] = alike(value, parameters[index])
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": entries, "param_groups": groups})
        return [StepLoss(**step) for step in read_json(folder / "curve.json")]
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise BrokenState(
            f"{folder}: this saved state cannot be continued from ({error}); delete the folder to "
            "start this training anew"
        ) from error


@torch.no_grad()
def _copy(saved: dict[str, Tensor], into: dict[str, Tensor]) -> None:
    if saved.keys() != into.keys():
        odd = sorted(saved.keys() ^ into.keys())
        raise ValueError(f"{len(odd)} weights are on one side only, the first is {odd[0]}")
    for name, value in saved.items():
        if value.shape != into[name].shape:
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}, expected {tuple(into[name].shape)}"
            )
        into[name].copy_(alike(value, into[name]))
