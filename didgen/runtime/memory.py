"""Memory: how much was used, and what to say when it runs out."""

import contextlib
import resource
from collections.abc import Iterator

import torch

_TEXTS = ("can't allocate memory", "not enough memory", "out of memory")


class OutOfMemory(ValueError):
    """The work does not fit into memory; the message says which settings need less."""


@contextlib.contextmanager
def explain_no_memory(needs_less: str) -> Iterator[None]:
    """When memory runs out inside, say which settings need less.

    Raises: OutOfMemory.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        text = str(error).strip()
        ran_out = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not ran_out and not any(known in text.lower() for known in _TEXTS):
            raise
        first = text.splitlines()[0] if text else "MemoryError"
        raise OutOfMemory(f"out of memory ({first}). {needs_less}") from error


def peak_memory() -> float:
    """The most memory used so far, GB: of the GPU where there is one, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
