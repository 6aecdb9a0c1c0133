"""Arithmetic that repeats: the same inputs, shapes and machine give the same bytes."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch


class NoDeterministicKernel(ValueError):
    """An operation for which PyTorch has no kernel that repeats bit by bit."""


@contextlib.contextmanager
def reproducible(device: str | torch.device) -> Iterator[None]:
    """Inside, a computation repeats bit by bit, whatever ran before or runs beside it.

    On a processor: one thread, for kernels share out work by the number of threads and may round
    differently at the seams. On a GPU: `deterministic_kernels`.
    """
    threads = torch.get_num_threads()
    if torch.device(device).type != "cuda":
        torch.set_num_threads(1)
    try:
        with deterministic_kernels(device):
            yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def deterministic_kernels(device: str | torch.device) -> Iterator[None]:
    """Inside, work on a GPU repeats bit by bit; for a processor nothing changes.

    Kernels are those that PyTorch counts as deterministic, and none is chosen by timing; where an
    operation has no such kernel, PyTorch warns. To be entered before the first work on the GPU.
    What was set before is set again at the end. For gradients through fused attention see
    `strict_kernels`.
    """
    if torch.device(device).type != "cuda":
        yield
        return
    # Read when cuBLAS starts; without it products may differ from run to run.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    # A module that answers as an object: type checkers do not see what it has.
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = False  # costs time, changes no result
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
            yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)
        memory.fill_uninitialized_memory = filled


@contextlib.contextmanager
def strict_kernels() -> Iterator[None]:
    """Within `deterministic_kernels`: gradients through fused attention repeat bit by bit too.

    While PyTorch is only to warn, it adds them up in whatever order they come. For a pass and its
    gradient; where kernels may vary anyway, nothing changes.

    Raises: NoDeterministicKernel for an operation that has none.
    """
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    if not (torch.are_deterministic_algorithms_enabled() and warned):
        yield
        return
    torch.use_deterministic_algorithms(True)
    try:
        yield
    except RuntimeError as error:
        message = str(error)
        if "deterministic" not in message:
            raise
        raise NoDeterministicKernel(
            "this computation has a part that cannot be made to repeat "
            f"({message.splitlines()[0]}); set `deterministic: false` where the stage has this "
            "setting"
        ) from error
    finally:
        torch.use_deterministic_algorithms(True, warn_only=True)
