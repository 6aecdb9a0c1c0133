"""Files that appear whole or not at all: written beside their final name, then moved into place."""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


class OutOfSpace(OSError):
    """The disk is full; nothing was left under the final name."""


_FULL = (errno.ENOSPC, errno.EDQUOT)
# What a killed process leaves of a file, `.name.xxxxxxxx.part.suffix`, or a folder,
# `.name.partxxxxxxxx`.
_LEFTOVER = re.compile(r"\..+\.(part[a-z0-9_]{8}(\.old)?|[a-z0-9_]{8}\.part(\.[^.]*)?)")
# Libraries that write through Rust or C++ raise types of their own and keep only the system's text.
_FULL_TEXT = re.compile("|".join(rf"{os.strerror(n)}|os error {n}\b" for n in _FULL))


@contextlib.contextmanager
def explain_full_disk(final: Path) -> Iterator[None]:
    """Raise `OutOfSpace` in place of whatever a full disk raises in the body."""
    try:
        yield
    except Exception as error:
        number = getattr(error, "errno", None)
        if number not in _FULL and not _FULL_TEXT.search(str(error)):
            raise
        raise OutOfSpace(
            number or errno.ENOSPC,
            f"no space left while writing {final}; nothing was left under that name. "
            "Free some space and run the same command again: finished work is kept",
        ) from error


def reserve(path: Path | str) -> None:
    """Give a file all the blocks of its size, its bytes unchanged.

    A new memory map is a file of holes. On a full disk a write into one of them is no error that
    could be caught, but kills the process (SIGBUS). Raises: `OSError` when the disk is full.
    """
    with Path(path).open("rb+") as stream:
        size = os.fstat(stream.fileno()).st_size
        if size:
            os.posix_fallocate(stream.fileno(), 0, size)


@contextlib.contextmanager
def atomic_path(final: Path | str, flush: bool = True) -> Iterator[Path]:
    """Give a temporary path beside `final`; on success it is flushed to disk and takes its name.

    Without `flush` a power cut may still leave an empty file: for many small ones, which together
    are flushed by `os.sync` before anything names them as finished.

    Raises: whatever the body raises; `OutOfSpace` when the disk is full. `final` is then untouched.
    """
    final = Path(final)
    with explain_full_disk(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=final.parent, prefix=f".{final.name[:40]}.", suffix=f".part{final.suffix}"
        )
        os.close(handle)
    temporary = Path(name)
    try:
        with explain_full_disk(final):
            yield temporary
            if flush:
                with temporary.open("rb+") as stream:
                    os.fsync(stream.fileno())
            # mkstemp makes private files; results are meant to be read by others.
            temporary.chmod(0o644)
            os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_directory(final: Path | str) -> Iterator[Path]:
    """Give a temporary directory beside `final`; on success it replaces `final` as a whole.

    For folders inside those that a stage owns, such as saved states. What a stage writes for its
    user is `didgen.runtime.outputs.output_folder`'s, which looks at what is there.
    Raises: whatever the body raises; `OutOfSpace` when the disk is full. `final` is then untouched.
    """
    final = Path(final)
    with explain_full_disk(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{final.name[:40]}.part"))
        temporary.chmod(0o755)
    aside = Path(f"{temporary}.old")
    try:
        with explain_full_disk(final):
            yield temporary
        if final.exists():
            os.rename(final, aside)
        os.rename(temporary, final)
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path | str, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write a value as indented JSON; NaN is refused, since JSON has none."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, default=_jsonable) + "\n")


def _jsonable(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"cannot write a {type(value).__name__} as JSON")


def read_json(path: Path | str) -> Any:
    """Read a JSON file. Raises: `OSError`; `ValueError`, which names the file, for what is none."""
    # Of a pipe or a device there may be no end.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError(f"{path}: found no plain file, expected one of JSON")
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read as JSON ({error})") from None


def read_object(path: Path | str) -> dict[str, Any]:
    """Read a JSON file that holds an object. Raises: as `read_json`."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise ValueError(f"{path}: found a JSON {type(value).__name__}, expected an object")
    return value


def read_csv(
    path: Path | str, stage: str, columns: Iterable[str] = (), of_each: Sequence[str] = ()
) -> "pd.DataFrame":
    """Read a table that a stage wrote: every cell as text, "" where absent.

    Raises: `ValueError`, which names file and stage, where there is none or no table, a column is
    missing or an id stands twice, or twice with the same cells in the columns `of_each`.
    """
    import pandas as pd

    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file; run the {stage} stage first")
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except ValueError as error:
        fault = f"cannot be read as a table ({error})"
    else:
        absent = ", ".join(name for name in columns if name not in frame)
        twice = [] if absent or "id" not in frame else (
            frame.loc[frame.duplicated(["id", *of_each]), "id"].tolist()
        )  # fmt: skip
        # Of rows with more cells than names pandas takes the first cells for an index.
        if len(frame) and not isinstance(frame.index, pd.RangeIndex):
            fault = "found rows of more cells than column names"
        elif absent:
            fault = f"found columns {', '.join(frame)}, expected also {absent}"
        elif twice:
            fault = f"{len(twice)} ids stand twice, such as {twice[0]!r}"
        else:
            return frame
    raise ValueError(f"{path}: {fault}; run the {stage} stage again")


def write_csv(path: Path | str, frame: Any) -> None:
    """Write a pandas table as CSV without its index, atomically."""
    with atomic_path(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")


def write_png(path: Path | str, pixels: np.ndarray, flush: bool = True) -> None:
    """Write uint8 (H, W) gray or (H, W, 3) RGB pixels, or a bool (H, W) mask as 0/255, as PNG.

    `flush`: as of `atomic_path`.
    """
    from PIL import Image

    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
        raise ValueError(
            f"expected a uint8 image of shape (H, W) or (H, W, 3), found {pixels.dtype} "
            f"of shape {pixels.shape}"
        )
    with atomic_path(path, flush) as temporary:
        # compress_level 4 writes about three times as fast as 6, for some 3 % more bytes.
        Image.fromarray(pixels).save(temporary, format="PNG", compress_level=4)


def place_file(source: Path, target: Path) -> None:
    """Hard-link a file where the file system can, else copy it: the same bytes, once on disk.

    Of a link, the file behind it. Raises: `ValueError` when there is a file of that name already.
    """
    if os.path.lexists(target):
        raise ValueError(f"{source}: another file is named {target.name} too; rename one of them")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)


def remove_leftovers(folder: Path | str) -> None:
    """Remove what interrupted atomic writes left below a folder that no other process writes to."""
    for place, folders, names in os.walk(folder):
        for name in filter(_LEFTOVER.fullmatch, names):
            (Path(place) / name).unlink()
        for name in filter(_LEFTOVER.fullmatch, list(folders)):
            shutil.rmtree(Path(place) / name)
            folders.remove(name)


def sha256_file(path: Path | str) -> str:
    """The SHA-256 of a file's bytes, as hexadecimal digits."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
