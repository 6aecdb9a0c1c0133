"""Batches shared out over processes of one thread each.

On a processor this beats threads: processes never wait for each other, and a batch's bytes cannot
depend on the number of cores.
"""

import contextlib
import logging
import multiprocessing
import multiprocessing.connection
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from didgen.runtime.children import end_with_parent, leaving_errors, raise_first

LOGGER = logging.getLogger(__name__)
GIGABYTE = 1e9
# What a process needs beside the weights: libraries, and attention maps and gradients of a batch.
BASE_GB, PER_WEIGHTS = 1.0, 2.0

Make = Callable[[int], None]


def process_count(wanted: int, batches: int, work: float, worth: float) -> int:
    """How many processes share the batches: none without one, and each with work that is `worth`
    its start; `work` is that of all batches, in the same unit."""
    return max(1, min(wanted, batches, int(work // worth)))


def memory_allows(weights_gb: float, given_gb: float | None) -> int:
    """How many processes fit, each with weights of its own, into the memory given or free.

    An estimate: 1 GB for libraries, and twice the weights for these and what is computed.
    """
    free = _free_gb() if given_gb is None else min(given_gb, _free_gb())
    return max(1, int(free // (BASE_GB + PER_WEIGHTS * weights_gb)))


def _free_gb() -> float:
    """Memory that the machine can still give, by the kernel's own estimate."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024 / GIGABYTE
    return float("inf")


def share_out(
    count: int, processes: int, make: Make, start: Callable[..., Make], *arguments: Any
) -> Iterator[int]:
    """Have the batches 0 to `count` - 1 made, here and in helper processes; yield the number of
    each when it is done, in whatever order.

    `make(n)` makes a batch here. Each helper calls `start(*arguments)` for a `make` of its own. A
    helper that is killed, as for lack of memory, leaves its batch to this process; a
    `ProcessPoolExecutor` would end all others with it, and their batches would be lost too.

    Raises: what `make` or `start` raises, here or in a helper; the helpers are ended first.
    """
    with tempfile.TemporaryDirectory(prefix="didgen-") as name:
        folder, reported = Path(name), set()
        team = [
            _start_helper(rank, folder, count, start, arguments) for rank in range(1, processes)
        ]
        try:
            for batch in _claims(folder, count):
                make(batch)
                _note_done(folder, batch)
                yield from _news(folder, reported)
            while alive := [helper.sentinel for helper in team if helper.is_alive()]:
                multiprocessing.connection.wait(alive, timeout=1)
                yield from _news(folder, reported)
            yield from _news(folder, reported)
        finally:
            _end(team)
    lost = sorted(set(range(count)) - reported)
    if lost:
        LOGGER.warning(
            "a helper process was killed, most likely for want of memory: the %d batches that it "
            "left are made without it",
            len(lost),
        )
    for batch in lost:
        make(batch)
        yield batch


def _claims(folder: Path, count: int) -> Iterator[int]:
    """The batches that no other process has taken: a file each, made by whoever is first."""
    for batch in range(count):
        try:
            (folder / f"claim{batch}").touch(exist_ok=False)
        except FileExistsError:
            continue
        yield batch


def _note_done(folder: Path, batch: int) -> None:
    (folder / f"done{batch}").touch()


def _news(folder: Path, reported: set[int]) -> Iterator[int]:
    """The batches done since the last call. Raises: what a helper raised."""
    raise_first(folder)
    done = {int(path.name.removeprefix("done")) for path in folder.glob("done*")}
    for batch in sorted(done - reported):
        reported.add(batch)
        yield batch


def _start_helper(
    rank: int, folder: Path, count: int, start: Callable[..., Make], arguments: tuple[Any, ...]
) -> BaseProcess:
    level = logging.getLogger().level
    # Spawned: a copy of a process with threads may lock up. A daemon ends with its parent's exit.
    helper = multiprocessing.get_context("spawn").Process(
        target=_help, args=(rank, folder, count, level, start, arguments), daemon=True
    )
    helper.start()
    return helper


def _help(
    rank: int,
    folder: Path,
    count: int,
    level: int,
    start: Callable[..., Make],
    arguments: tuple[Any, ...],
) -> None:
    from didgen.runtime.reproducible import reproducible

    end_with_parent()
    # The parent ends its helpers; what the shell had ignored would be ignored here too.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Only the first process logs, except warnings.
    logging.basicConfig(level=max(level, logging.WARNING), format=f"[helper {rank}] %(message)s")
    try:
        with leaving_errors(folder, rank), reproducible("cpu"):
            make = start(*arguments)
            for batch in _claims(folder, count):
                make(batch)
                _note_done(folder, batch)
    except Exception:
        sys.exit(1)  # left in the folder: the parent raises it


def _end(team: list[BaseProcess]) -> None:
    for helper in team:
        with contextlib.suppress(ProcessLookupError):
            helper.terminate()
    for helper in team:
        helper.join(10)
        if helper.is_alive():
            helper.kill()
            helper.join()
