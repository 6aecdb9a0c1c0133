"""Several processes that train one model: each takes its part of every batch.

Gradients are averaged by PyTorch's DistributedDataParallel (DDP), set up by accelerate, or by
fully sharded data parallelism (FSDP, Zhao et al. 2023), where each process holds a share of the
optimiser. Processes are started here, one for each GPU or, on a processor, with an even share of
its cores; or by `accelerate launch`, which also spans machines.

On one machine they are started here, because the launcher would hide what a workflow needs: it
replaces exit codes and messages by its own, gives processes 30 seconds after SIGTERM whatever the
size of their state, and must be told how many processes there are apart from the stage.

What is sharded is a copy of the module: the module itself stays whole on every process, so that
samples and checkpoints need no other process, and is brought up to date where they are made. A
process then holds the weights twice, but of the optimiser's state, the largest part, its share.
"""

import contextlib
import copy
import datetime
import logging
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from didgen.runtime.children import leaving_errors, raise_first
from didgen.runtime.devices import TooFewGpus, lease_gpus

# The first process may encode a whole data set while the others wait.
_PATIENCE = datetime.timedelta(hours=12)


class Team:
    """The processes that train together; alone, every method does nothing that costs time."""

    def __init__(self, accelerator: Any = None, sharded: bool = False) -> None:
        self._accelerator = accelerator
        self.sharded = sharded and accelerator is not None

    @property
    def size(self) -> int:
        """How many processes there are."""
        return self._accelerator.num_processes if self._accelerator else 1

    @property
    def rank(self) -> int:
        """This process's number, from 0."""
        return self._accelerator.process_index if self._accelerator else 0

    def wrap(self, module: nn.Module, blocks: Collection[str] = ()) -> nn.Module:
        """The module to call in training, so that its gradients are averaged.

        blocks: names of the classes of layers that are gathered together, where it is sharded.
        """
        if self.sharded:
            return _shard(module, blocks)
        return self._accelerator.prepare_model(module) if self._accelerator else module

    @contextlib.contextmanager
    def only_adding(self, module: nn.Module) -> Iterator[None]:
        """A context in which the gradients of a wrapped module add up without being averaged."""
        if self.sharded:
            module.set_requires_gradient_sync(False)
            yield
            module.set_requires_gradient_sync(True)
            return
        with module.no_sync() if self._accelerator else contextlib.nullcontext():
            yield

    @torch.no_grad()
    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Average gradients over the processes, in place: for modules that are not wrapped.

        Parameters without a gradient must be the same ones in every process.
        """
        if self._accelerator is None:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = self.sum(torch.cat([g.reshape(-1) for g in gradients])) / self.size
        parts = flat.split([g.numel() for g in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the processes, the same in each."""
        return self._accelerator.reduce(values, "sum") if self._accelerator else values

    def any(self, *flags: bool) -> list[bool]:
        """Of each flag, whether any process raised it."""
        if self._accelerator is None:
            return list(flags)
        raised = torch.tensor([float(f) for f in flags], device=self._accelerator.device)
        return (self.sum(raised) > 0).tolist()

    def wait(self) -> None:
        """Go on when every process has come here."""
        if self._accelerator:
            self._accelerator.wait_for_everyone()


ALONE = Team()


def inside() -> bool:
    """Whether this process was started as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextlib.contextmanager
def joined(sharded: bool = False, cpu: bool = False) -> Iterator[Team]:
    """The team that this process belongs to; it is left at the end.

    cpu: compute on the processor even where there is a GPU.
    """
    if not inside():
        yield ALONE
        return
    from accelerate import Accelerator, InitProcessGroupKwargs

    accelerator = Accelerator(
        cpu=cpu or not torch.cuda.is_available(),
        mixed_precision="no",
        kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)],
    )
    try:
        yield Team(accelerator, sharded)
    finally:
        accelerator.end_training()


def take_gpus(count: int, key: str) -> None:
    """Take a GPU for each process, for this job alone; nothing on a machine without any.

    Raises: ValueError, naming the setting `key`, where there are fewer.
    """
    try:
        if torch.backends.cuda.is_built():
            lease_gpus(count)
    except TooFewGpus as error:
        raise ValueError(f"{key}: {error}; expected one for each process") from None
    there = torch.cuda.device_count()
    if torch.cuda.is_available() and count > there:
        raise ValueError(f"{key}: found {count}, expected at most {there}, one for each GPU")


def spawn(label: str, count: int, function: Callable[..., None], *arguments: Any) -> None:
    """Call a function with the same arguments in `count` new processes that form a team.

    `label` begins the lines of their log. SIGTERM is handed on to them. Raises: what the function
    raises in the first that fails; SystemExit with its code when one ends so.
    """
    import torch.multiprocessing as multiprocessing

    with tempfile.TemporaryDirectory() as folder:
        level = logging.getLogger().level
        given = (count, _free_port(), Path(folder), label, level, function, arguments)
        context = multiprocessing.start_processes(
            _enter, args=given, nprocs=count, join=False, start_method="spawn"
        )

        def hand_on(*_: object) -> None:
            for pid in context.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)

        try:
            with on_sigterm(hand_on):
                while not context.join():
                    continue
        except multiprocessing.ProcessExitedException as error:
            if error.exit_code > 0:
                raise SystemExit(error.exit_code) from None
            # Asked to end before it could report.
            if error.exit_code == -signal.SIGTERM:
                raise SystemExit(128 + signal.SIGTERM) from None
            raise
        except multiprocessing.ProcessRaisedException:
            raise_first(Path(folder))
            raise


def _enter(
    rank: int,
    count: int,
    port: int,
    folder: Path,
    label: str,
    level: int,
    function: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    # Only the first process logs, except warnings.
    logging.basicConfig(
        level=level if rank == 0 else logging.WARNING,
        format=f"%(asctime)s {label}: %(message)s" if rank == 0 else f"[{rank}] %(message)s",
        datefmt="%H:%M:%S",
    )
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    threads = max(1, len(os.sched_getaffinity(0)) // count)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    with leaving_errors(folder, rank):
        function(*arguments)


@contextlib.contextmanager
def on_sigterm(handler: Callable[..., None]) -> Iterator[None]:
    """Call the handler on SIGTERM; outside the main thread nothing, there the caller handles it."""
    previous = signal.getsignal(signal.SIGTERM)
    try:
        signal.signal(signal.SIGTERM, handler)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


def _shard(module: nn.Module, blocks: Collection[str]) -> nn.Module:
    """A copy of the module whose parameters are spread over the processes of the default group.

    Layers stay whole from a block's forward pass to its backward pass: what hooks record of them
    may be part of the graph and need the weights for as long as it lives.
    """
    # Imported where it is needed: it takes half a second, and most trainings have one process.
    from torch.distributed.fsdp import fully_shard

    module = copy.deepcopy(module)
    for block in module.modules():
        if type(block).__name__ in blocks:
            fully_shard(block, reshard_after_forward=False)
    return fully_shard(module, reshard_after_forward=False)


def whole(value: Tensor) -> Tensor:
    """A tensor in full; of a sharded one every process must ask at the same time."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def spread_as(value: Tensor, example: Tensor) -> Tensor:
    """A full tensor, spread as the example is; every process must ask at the same time."""
    if not isinstance(example, DTensor):
        return value
    value = value.to(device=example.device, dtype=example.dtype)
    return distribute_tensor(value, example.device_mesh, example.placements)


@torch.no_grad()
def gather(shards: Sequence[Tensor], into: Sequence[Tensor]) -> None:
    """Copy sharded tensors into whole ones, in order; every process must ask at the same time."""
    for value, place in zip(shards, into, strict=True):
        place.copy_(whole(value))
