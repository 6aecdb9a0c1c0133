"""Locks that the operating system drops when their holder ends, however it ends.

Of the standard library alone, so that any launcher of the workflow can import it.
"""

import contextlib
import fcntl
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO

LOGGER = logging.getLogger(__name__)
# Held until the process ends.
_HELD: list[IO[str]] = []


@contextlib.contextmanager
def sole_writer(folder: Path | str) -> Iterator[None]:
    """Inside, no other process is in the same block for the same folder; wait for one that is.

    A launcher that was killed may leave a stage behind: the next one waits for its end, and finds
    its work done. On a file system without locks nothing is waited for.
    """
    path = Path(folder) / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            LOGGER.warning("%s: another process is at work there; waiting for its end", folder)
            fcntl.flock(stream, fcntl.LOCK_EX)
        except OSError as error:
            LOGGER.debug("%s: no locks on this file system (%s)", folder, error)
        yield


def own_run(directory: Path | str) -> bool:
    """Make this process the one that runs snakemake's jobs, and drop the lock of a killed one.

    `directory`: snakemake's own, `.snakemake`. False, and nothing is done, while another process
    of this kind lives, or where the file system has no locks. A lock left on another machine is
    kept too: there may be file systems whose locks end at a machine's borders.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    stream = (directory / "run.lock").open("a+", encoding="utf-8")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        stream.close()
        return False
    _HELD.append(stream)
    stream.seek(0)
    here = socket.gethostname()
    if stream.read() == here:
        for left in (directory / "locks").glob("*.lock"):
            left.unlink(missing_ok=True)
    stream.truncate(0)
    stream.write(here)
    stream.flush()
    return True
