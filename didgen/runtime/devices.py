"""Which GPUs a process may use: leases by lock file, so that two jobs never share a GPU.

Workflow engines count GPUs but do not say which one a job gets. Each job therefore locks the GPUs
that it takes, among those that it can see. The operating system drops the locks when the process
ends, however it ends. Nothing here starts CUDA: it reads `CUDA_VISIBLE_DEVICES` once, at its start.
"""

import contextlib
import functools
import hashlib
import logging
import os
import stat
import subprocess
import tempfile
import time
from pathlib import Path

from filelock import FileLock, Timeout

LOGGER = logging.getLogger(__name__)
VISIBLE = "CUDA_VISIBLE_DEVICES"
# The folder of the lock files, where users share GPUs; on a disk of the machine itself.
FOLDER = "DIDGEN_GPU_LOCKS"
_LEASED = "DIDGEN_GPUS_LEASED"
_POLL = 2.0
_TELL = 300.0
# Held until the process ends.
_HELD: list[FileLock] = []


class TooFewGpus(ValueError):
    """More GPUs are asked for than there are."""


class UnsafeLockFolder(ValueError):
    """The folder of the lock files is a link, or belongs to or is open to other users."""


def lease_gpus(count: int = 1) -> list[str]:
    """Take `count` of the visible GPUs for this process and its children; wait until so many are
    free. The taken ones alone stay visible. Returns their names, none on a machine without GPUs.

    To be called before CUDA starts. A second call gives what the first has taken. Where
    `CUDA_VISIBLE_DEVICES` names just as many, or the machine has a single one, there is nothing to
    choose: they are locked where they are free, but not waited for. Processes that a launcher has
    numbered (`LOCAL_RANK`) share what is visible and lease nothing.

    Raises: TooFewGpus, UnsafeLockFolder.
    """
    seen = visible_gpus()
    if not seen or "LOCAL_RANK" in os.environ:
        return list(seen)
    if os.environ.get(_LEASED) == os.environ.get(VISIBLE, ""):
        taken = os.environ[_LEASED].split(",")
        if count > len(taken):
            raise TooFewGpus(f"{count} GPUs are asked for, but {len(taken)} were taken before")
        return taken
    if count > len(seen):
        raise TooFewGpus(f"{count} GPUs are asked for, but there are only {_words(seen)}")
    if count == len(seen) and (VISIBLE in os.environ or len(seen) == 1):
        taken = list(seen)
        _lock_free_ones(seen)
    else:
        taken = _wait_for(count, seen)
    os.environ[VISIBLE] = os.environ[_LEASED] = ",".join(taken)
    # `nvidia-smi` counts so; CUDA would put the fastest first.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    return taken


def visible_gpus() -> dict[str, str]:
    """The GPUs that this process may use: name for `CUDA_VISIBLE_DEVICES` -> GPU's identity.

    The identity is the GPU's UUID, since a scheduler may number each job's GPUs from 0.
    """
    uuids = _host_gpus()
    named = os.environ.get(VISIBLE)
    if named is None:
        return {uuid: uuid for uuid in uuids}
    gpus: dict[str, str] = {}
    for name in map(str.strip, named.split(",")):
        identity = _identity(name, uuids)
        if identity is None:
            break  # as CUDA does: nothing counts from the first unknown name on
        gpus[name] = identity
    return gpus


def _identity(name: str, uuids: tuple[str, ...]) -> str | None:
    if name.isdigit():
        return uuids[int(name)] if int(name) < len(uuids) else None
    if name.startswith("MIG-"):
        return name
    matches = [uuid for uuid in uuids if name and uuid.startswith(name)]
    return matches[0] if len(matches) == 1 else None


@functools.cache
def _host_gpus() -> tuple[str, ...]:
    """UUIDs of the GPUs that the driver shows to this process, in its order."""
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    if done.returncode:
        return ()
    return tuple(line.strip() for line in done.stdout.splitlines() if line.startswith("GPU-"))


def _wait_for(count: int, seen: dict[str, str]) -> list[str]:
    """Lock `count` of the GPUs, all at once: a job with a part of its GPUs would block others."""
    last_message = -_TELL
    while True:
        with _gate():
            taken = _take_free(seen, count)
        if taken:
            return taken
        if time.monotonic() - last_message >= _TELL:
            last_message = time.monotonic()
            LOGGER.info("waiting for %d of %s: in use by other jobs", count, _words(seen))
        time.sleep(_POLL)


def _gate() -> FileLock:
    """Held while GPUs are chosen, so that two jobs do not take each other's halves."""
    return _lock("gate")


def _take_free(seen: dict[str, str], count: int) -> list[str]:
    """Lock the first `count` free GPUs; none where there are fewer."""
    locks: dict[str, FileLock] = {}
    for name, identity in seen.items():
        lock = _lock(identity)
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=0)
            locks[name] = lock
        if len(locks) == count:
            _HELD.extend(locks.values())
            return list(locks)
    for lock in locks.values():
        lock.release()
    return []


def _lock_free_ones(seen: dict[str, str]) -> None:
    for name, identity in seen.items():
        lock = _lock(identity)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            LOGGER.warning("GPU %s is in use by another job too; no other is visible", name)
        else:
            _HELD.append(lock)


def _lock(identity: str) -> FileLock:
    shared = bool(os.environ.get(FOLDER))
    name = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return FileLock(_lock_folder() / f"{name}.lock", mode=0o666 if shared else 0o600)


def _lock_folder() -> Path:
    """The folder of the lock files: the one that is named, or a private one of this user.

    The system's temporary folder is open to everybody, who could have put anything there.
    Raises: UnsafeLockFolder.
    """
    user, given = os.getuid(), os.environ.get(FOLDER)
    folder = Path(given) if given else Path(tempfile.gettempdir()) / f"didgen-gpus-{user}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise UnsafeLockFolder(f"{folder}: found a link or a file, expected a folder; remove it")
    if not given and (status.st_uid != user or status.st_mode & (stat.S_IRWXG | stat.S_IRWXO)):
        raise UnsafeLockFolder(
            f"{folder}: found owner {status.st_uid} and mode {stat.S_IMODE(status.st_mode):o}, "
            f"expected {user} and 700; remove it, or name a folder in {FOLDER}"
        )
    return folder


def _words(seen: dict[str, str]) -> str:
    return f"{len(seen)} visible GPU{'s' if len(seen) > 1 else ''}"
