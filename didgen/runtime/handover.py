"""Exceptions on their way from a child process to its parent, with their own type and words.

`torch.multiprocessing` tells the parent only a text of what a child raised.
"""

import contextlib
import pickle
from collections.abc import Iterator
from pathlib import Path

from didgen.runtime.files import atomic_path


@contextlib.contextmanager
def leaving_errors(folder: Path, rank: int) -> Iterator[None]:
    """In the child: what the body raises is also left in the folder, then raised."""
    try:
        yield
    except Exception as error:
        with atomic_path(folder / f"error{rank}") as path:
            path.write_bytes(pickle.dumps(error))
        raise


def raise_first(folder: Path) -> None:
    """In the parent: raise what the child of the lowest rank left; nothing where none did."""
    for path in sorted(folder.glob("error*"), key=lambda path: int(path.name[5:])):
        raise pickle.loads(path.read_bytes()) from None
