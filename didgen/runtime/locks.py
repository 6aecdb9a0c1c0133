"""Locks that the operating system drops when their holder ends, however it ends.

Of the standard library alone, so that any launcher of the workflow can import it.
"""

import contextlib
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO

LOGGER = logging.getLogger(__name__)
# Held until the process ends.
_HELD: list[IO[str]] = []
UNKNOWN = "?"
LOCK = ".lock"


@contextlib.contextmanager
def sole_writer(folder: Path | str) -> Iterator[None]:
    """Inside, no other process is in the same block for the same folder; wait for one that is.

    A launcher that was killed may leave a stage behind: the next one waits for its end, and finds
    its work done. On a file system without locks nothing is waited for.
    """
    path = Path(folder) / LOCK
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                LOGGER.warning("%s: another process is at work there; waiting for its end", folder)
                fcntl.flock(stream, fcntl.LOCK_EX)
            except OSError as error:
                LOGGER.warning(
                    "%s: this file system has no locks (%s); make sure that no other job of this "
                    "run is left",
                    folder,
                    error,
                )
            # The other process may have moved the folder away meanwhile, and its lock with it.
            if _is_at(path, stream):
                yield
                return


def _is_at(path: Path, stream: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(stream.fileno()))
    except FileNotFoundError:
        return False


def own_run(directory: Path | str) -> bool:
    """Make this process one that runs snakemake's jobs, and drop the locks of a killed one.

    `directory`: snakemake's own, `.snakemake`. False, and no lock is dropped, while another run
    in this directory lives, or where the file system has no locks. A lock left on another machine
    is kept too, however often it is tried: there may be file systems whose locks hold on one
    machine alone.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    stream = (directory / "run.lock").open("a+", encoding="utf-8")
    try:
        alone = _alone(stream)
        # Shared from here on: the next run in this directory sees that one is alive.
        fcntl.flock(stream, fcntl.LOCK_SH)
    except OSError:
        stream.close()
        return False
    _HELD.append(stream)
    stream.seek(0)
    hosts, here = set(stream.read().split()), socket.gethostname()
    left = list((directory / "locks").glob("*.lock"))
    if alone and hosts == {here}:
        for lock in left:
            lock.unlink(missing_ok=True)
        left = []
    # Whose locks are left: of this machine alone, or of others and of unknown origin too.
    hosts = {here} if alone and not left else hosts | {here} | (set() if hosts else {UNKNOWN})
    stream.truncate(0)
    stream.write(" ".join(sorted(hosts)))
    stream.flush()
    return alone


def _alone(stream: IO[str]) -> bool:
    """Take the lock for this process alone, if no other one holds it."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
