"""Several processes that train one model: each takes its part of a batch, gradients are averaged.

On few cores that are shared with other work this beats threads: processes wait for each other
once a step, threads at every layer.
"""

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as distributed
import torch.multiprocessing as multiprocessing
from torch import Tensor

from didgen.runtime.handover import leaving_errors, raise_first


def run_in_parallel(count: int, function: Callable[..., None], *arguments: Any) -> None:
    """Call a function with the same arguments in `count` processes of one thread each.

    A single process is the calling one. Raises: what the function raises.
    """
    if count == 1:
        function(*arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            level = logging.getLogger().level
            given = (count, Path(folder), level, function, arguments)
            multiprocessing.spawn(_enter, args=given, nprocs=count)
        except multiprocessing.ProcessRaisedException:
            raise_first(Path(folder))
            raise


def _enter(
    rank: int,
    count: int,
    folder: Path,
    level: int,
    function: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    # A new process starts without the parent's logging.
    logging.basicConfig(level=level, format="%(message)s")
    torch.set_num_threads(1)
    meeting = (folder / "meeting").as_uri()
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count)
    try:
        with leaving_errors(folder, rank):
            function(*arguments)
    finally:
        distributed.destroy_process_group()


def rank() -> int:
    """This process's number, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def size() -> int:
    """How many processes train."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def average_gradients(parameters: list[Tensor], flag: bool) -> bool:
    """Average the gradients over the processes, in place; True if any process raised its flag.

    Parameters without a gradient must be the same ones in every process.
    """
    if size() == 1:
        return flag
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([*(g.reshape(-1) for g in gradients), torch.tensor([float(flag)])])
    distributed.all_reduce(flat)
    flat /= size()
    parts = flat[:-1].split([g.numel() for g in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))
    return bool(flat[-1] > 0)
