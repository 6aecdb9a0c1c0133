"""What child processes share: they end with their parent, which raises what they raised.

`torch.multiprocessing` passes on only the text of an exception; here its type is kept.
"""

import contextlib
import multiprocessing
import os
import pickle
import threading
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
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


def end_with_parent() -> None:
    """In the child: end at once when the parent is gone, killed perhaps. All writes are atomic."""

    def wait(parent: BaseProcess) -> None:
        parent.join()
        os._exit(1)

    if parent := multiprocessing.parent_process():
        threading.Thread(target=wait, args=(parent,), daemon=True).start()
