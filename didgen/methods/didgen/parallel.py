"""Several processes that fine-tune one model: each takes its part of every batch.

Gradients are averaged by PyTorch's DistributedDataParallel (DDP), set up by accelerate, or by
fully sharded data parallelism (FSDP), where each holds a share of the optimiser. Processes are
started here, one for each GPU or, on a processor, with an even share of its cores; or by
`accelerate launch`, which also spans machines.

On one machine they are started here, because the launcher would hide what a workflow needs: it
replaces exit codes and messages by its own, gives processes 30 seconds after SIGTERM whatever the
size of their state, and wants to be told apart from the stage how many processes there are.
"""

import contextlib
import datetime
import logging
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from didgen.methods.didgen.sharding import shard
from didgen.runtime.devices import TooFewGpus, lease_gpus
from didgen.runtime.handover import leaving_errors, raise_first

LOGGER = logging.getLogger(__name__)
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

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module to call in training, so that its gradients are averaged."""
        if self.sharded:
            return shard(module)
        return self._accelerator.prepare_model(module) if self._accelerator else module

    @contextlib.contextmanager
    def only_adding(self, module: nn.Module) -> Iterator[None]:
        """A context in which gradients pile up without being averaged."""
        if self.sharded:
            module.set_requires_gradient_sync(False)
            yield
            module.set_requires_gradient_sync(True)
            return
        with module.no_sync() if self._accelerator else contextlib.nullcontext():
            yield

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the processes, the same in each."""
        return self._accelerator.reduce(values, "sum") if self._accelerator else values

    def wait(self) -> None:
        """Go on when every process has come here."""
        if self._accelerator:
            self._accelerator.wait_for_everyone()


ALONE = Team()


def inside() -> bool:
    """Whether this process was started as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextlib.contextmanager
def joined(sharded: bool = False) -> Iterator[Team]:
    """The team that this process belongs to; it is left at the end."""
    if not inside():
        yield ALONE
        return
    from accelerate import Accelerator, InitProcessGroupKwargs

    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision="no",
        kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)],
    )
    try:
        yield Team(accelerator, sharded)
    finally:
        accelerator.end_training()


def take_gpus(count: int) -> None:
    """Take a GPU for each process, for this job alone; nothing on a machine without any.

    Raises: ValueError where there are fewer.
    """
    try:
        if torch.backends.cuda.is_built():
            lease_gpus(count)
    except TooFewGpus as error:
        raise ValueError(f"finetune.processes: {error}; expected one for each process") from None
    there = torch.cuda.device_count()
    if torch.cuda.is_available() and count > there:
        raise ValueError(
            f"finetune.processes: found {count}, expected at most {there}, one for each GPU"
        )


def spawn(count: int, function: Callable[..., None], *arguments: Any) -> None:
    """Call a function with the same arguments in `count` new processes that form a team.

    SIGTERM is handed on to them. Raises: what the function raises in the first that fails;
    SystemExit with its code when one ends so.
    """
    import torch.multiprocessing as multiprocessing

    with tempfile.TemporaryDirectory() as folder:
        given = (count, _free_port(), Path(folder), logging.getLogger().level, function, arguments)
        context = multiprocessing.start_processes(
            _enter, args=given, nprocs=count, join=False, start_method="spawn"
        )
        try:
            with _handing_on_sigterm(context.pids()):
                while not context.join():
                    continue
        except multiprocessing.ProcessExitedException as error:
            if error.exit_code > 0:
                raise SystemExit(error.exit_code) from None
            raise
        except multiprocessing.ProcessRaisedException:
            raise_first(Path(folder))
            raise


def _enter(
    rank: int,
    count: int,
    port: int,
    folder: Path,
    level: int,
    function: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    # Only the first process speaks, but for warnings.
    logging.basicConfig(
        level=level if rank == 0 else logging.WARNING,
        format="%(asctime)s finetune: %(message)s" if rank == 0 else f"[{rank}] %(message)s",
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
def _handing_on_sigterm(pids: list[int]) -> Iterator[None]:
    def hand_on(*_: object) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    previous = signal.getsignal(signal.SIGTERM)
    try:
        signal.signal(signal.SIGTERM, hand_on)
    except ValueError:  # not the main thread: the caller handles signals
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
