"""The folders that stages write: each appears whole, and replaces nothing but an earlier result.

A stage writes into a hidden folder beside its output and renames it into place at the end. A marker
in it names the stage and lists the files that the stage wrote. A folder with files but without that
marker is somebody else's and is refused; of an earlier result only listed files are ever deleted.
"""

import contextlib
import logging
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from didgen.runtime.files import (
    explain_full_disk,
    read_json,
    remove_leftovers,
    write_json,
)
from didgen.runtime.locks import LOCK, sole_writer

LOGGER = logging.getLogger(__name__)
MARKER = ".didgen.json"
FORMAT = 1
SHOWN = 5


class OutputError(ValueError):
    """An output that would overwrite something else, or that cannot be written."""


@dataclass(frozen=True)
class _Marker:
    stage: str
    # What the folder was made from, where unfinished work is continued.
    key: str | None = None
    files: tuple[str, ...] = ()
    format: int = FORMAT


def check_output(out: Path | str, stage: str, inputs: Iterable[Path] = ()) -> Path:
    """The folder to write, links resolved: absent, without any file, or an earlier result of this
    stage. To be called before costly work.

    Raises: OutputError for any other, and for the file system's root, the home folder, a
    repository, the working directory, or a folder that is or holds one of `inputs`.
    """
    if str(out).startswith("~"):
        raise OutputError(f"{out}: found ~, expected the path of the home folder written out")
    final = Path(os.path.realpath(out))
    if os.path.lexists(final) and not final.is_dir():
        raise OutputError(f"{final}: found a file, expected a folder to write; choose another")
    if final in _and_parents(Path.cwd()):
        raise OutputError(
            f"{final} is or holds the working directory and is never replaced; name a folder in it"
        )
    if final in _and_parents(Path.home()):
        raise OutputError(
            f"{final} is or holds the home folder and is never replaced; name a folder in it"
        )
    if (final / ".git").exists():
        raise OutputError(f"{final} is a repository and is never replaced; name a folder in it")
    if os.path.ismount(final):
        raise OutputError(
            f"{final} is where a disk is mounted and cannot be replaced; name a folder in it"
        )
    for path in inputs:
        if final in _and_parents(Path(path)):
            raise OutputError(
                f"{final} is or holds {path}, which {stage} reads, and would be replaced; choose "
                "another folder for the output"
            )
    if _is_vacant(final):
        return final
    marker = _read_marker(final)
    if marker is None:
        raise OutputError(
            f"{final}: found files, but no {MARKER} of `didgen {stage}`, so they may be yours; "
            "nothing was changed. Choose another folder, or move this one away; a result of an "
            "older version of DiDGen may be deleted"
        )
    if marker.stage != stage:
        raise OutputError(
            f"{final}: found a result of `didgen {marker.stage}`, expected one of `didgen {stage}` "
            "or no files; nothing was changed. Choose another folder"
        )
    return final


def check_output_file(path: Path | str, expected: str, is_earlier: Callable[[str], bool]) -> None:
    """A file to write: absent, or an earlier one.

    expected: what an earlier one is, in words. is_earlier: whether a text is that of an earlier
    one; what it raises of a text that is built in another way means no.
    Raises: OutputError for any other.
    """
    path = Path(path)
    check_above(path)
    if not os.path.lexists(path):
        return
    if path.is_symlink():
        raise OutputError(
            f"{path}: found a link to {os.path.realpath(path)}, which would be replaced and not "
            "followed; name that file, or remove the link"
        )
    if path.is_dir():
        raise OutputError(f"{path}: found a folder, expected the name of a file to write")
    try:
        # Reading a pipe would wait for ever.
        earlier = path.is_file() and is_earlier(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        earlier = False
    if not earlier:
        raise OutputError(
            f"{path}: found something else than an earlier result, expected no file or {expected}; "
            "nothing was changed. Choose another name"
        )


def check_outside(out: Path | str, folder: Path | str) -> None:
    """Raises: OutputError for an output in a folder all of which is read as images."""
    if Path(os.path.realpath(out)).is_relative_to(os.path.realpath(folder)):
        raise OutputError(
            f"{out} lies in {folder}, whose folders are all read as images; choose another folder "
            "for the output"
        )


def check_above(path: Path) -> None:
    """Raises: OutputError where something else than a folder lies above a file to write."""
    above = next(place for place in path.absolute().parents if os.path.lexists(place))
    if not above.is_dir():
        raise OutputError(f"{path}: found a file or a broken link at {above}, expected a folder")


def paths_read(config: Any, *named: Path | str | None) -> list[Path]:
    """Every path in a stage's settings but `out` and `tables`, which it writes.

    `named`: settings that may be paths, or names of another kind; those that are there count.
    """
    names = [name for name in type(config).model_fields if name not in ("out", "tables")]
    values = [getattr(config, name) for name in names]
    flat = [item for v in values for item in (v if isinstance(v, tuple | list) else (v,))]
    paths = [item for item in flat if isinstance(item, Path)]
    return paths + [Path(name) for name in named if name and os.path.exists(name)]


@contextlib.contextmanager
def output_folder(
    out: Path | str, stage: str, inputs: Iterable[Path] = (), key: str | None = None
) -> Iterator[Path]:
    """Give a folder to write to; on success it takes the place of `out` as a whole.

    It lies beside `out`, under a hidden name, and belongs to this process alone: another one with
    the same `out` waits. Without a `key` it is empty, and removed when the body fails. With one, it
    holds what was written before for the same key, be it unfinished or the result now at `out`, and
    is kept when the body fails. Files in `out` that the stage did not write are carried over.

    Raises: OutputError as `check_output`; whatever the body raises; `OutOfSpace` when the disk is
    full. `out` is then untouched.
    """
    inputs = list(inputs)
    final = check_output(out, stage, inputs)
    work, aside = _beside(final, "unfinished"), _beside(final, "replaced")
    with _sole_worker(work, stage):
        try:
            _heal(final, aside)
            check_output(out, stage, inputs)  # another process may have been here
            _begin(work, final, _Marker(stage, key))
            with explain_full_disk(final):
                yield work
                remove_leftovers(work)
                written = sorted(set(map(str, _entries(work))) - {MARKER, LOCK})
                _write_marker(work, _Marker(stage, key, tuple(written)))
        except BaseException:
            if key is None:
                _clear(work)
                (work / LOCK).unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # another process has begun there
                    work.rmdir()
            raise
        try:
            check_output(out, stage, inputs)
        except OutputError as error:
            raise OutputError(f"{error}; what was to be written there lies in {work}") from None
        _replace(final, work, aside)


def _and_parents(path: Path) -> list[Path]:
    path = Path(os.path.realpath(path))
    return [path, *path.parents]


def _beside(final: Path, what: str) -> Path:
    return final.with_name(f".{final.name}.{what}")


def _entries(folder: Path) -> Iterator[Path]:
    """Every file below a folder, links and special files too, relative to it."""

    def stop(error: OSError) -> None:
        raise error

    for place, folders, files in os.walk(folder, onerror=stop):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        yield from (Path(place, name).relative_to(folder) for name in (*files, *links))


def _is_vacant(folder: Path) -> bool:
    """Whether there is no file: workflow engines make the folders of outputs beforehand."""
    return not folder.exists() or next(_entries(folder), None) is None


def _drop_vacant(folder: Path) -> None:
    for place, _, _ in os.walk(folder, topdown=False):
        os.rmdir(place)


def _read_marker(folder: Path) -> _Marker | None:
    """The folder's marker, None without one. Raises: OutputError for a damaged or newer one."""
    path = folder / MARKER
    if not os.path.lexists(path):
        return None
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise ValueError("it is no plain file")
        values = read_json(path)
        if values["format"] > FORMAT:
            raise ValueError(f"format {values['format']} is of a newer version of DiDGen")
        marker = _Marker(**values)
        if not all(isinstance(name, str) for name in (marker.stage, *marker.files)):
            raise ValueError("its values have other types")
    except FileNotFoundError:
        # Its folder was renamed in between, by another process that is done.
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise OutputError(
            f"{path}: cannot be read ({error}), so nobody knows whose files these are; nothing was "
            "changed. Choose another folder, or move this one away"
        ) from None
    return marker


def _write_marker(folder: Path, marker: _Marker) -> None:
    write_json(folder / MARKER, asdict(marker))


@contextlib.contextmanager
def _sole_worker(work: Path, stage: str) -> Iterator[None]:
    """Hold the lock of the hidden folder, which is made where it is absent."""
    with contextlib.ExitStack() as stack:
        try:
            left = _read_marker(work)
            if work.is_symlink() or not (_is_vacant(work) or (work / LOCK).exists() or left):
                raise OutputError(
                    f"{work}: this name is needed for unfinished work; move the files away"
                )
            # Of a model's answers, for example, which may have been paid for.
            if left and left.key is not None and left.stage != stage:
                raise OutputError(
                    f"{work}: found unfinished work of `didgen {left.stage}`; finish it by that "
                    "command, delete it, or choose another folder for the output"
                )
            stack.enter_context(sole_writer(work))
        except OSError as error:
            raise OutputError(
                f"{work.parent}: cannot be written to ({error.strerror}); choose another folder "
                "for the output"
            ) from error
        yield


def _begin(work: Path, final: Path, marker: _Marker) -> None:
    """Empty the hidden folder, or leave in it what has the marker's key; the marker goes last."""
    before, earlier = _read_marker(work), _read_marker(final)
    if marker.key is not None and before is not None and before.key == marker.key:
        return
    if marker.key is not None and any(
        m is not None and m.key != marker.key for m in (before, earlier)
    ):
        LOGGER.info("%s: settings or inputs have changed: everything is made afresh", final)
    _clear(work)
    if final.exists():
        work.chmod(stat.S_IMODE(final.stat().st_mode))  # it may be private
    if marker.key is not None and earlier is not None and earlier.key == marker.key:
        for name in sorted(set(earlier.files) & set(map(str, _entries(final)))):
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(final / name, work / name, follow_symlinks=False)
        os.sync()
    _write_marker(work, marker)


def _clear(work: Path) -> None:
    """Remove all but the lock from a hidden folder."""
    for path in work.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def _replace(final: Path, work: Path, aside: Path) -> None:
    """Rename the old result aside and the new one in, then delete the old."""
    if _is_vacant(final):
        _drop_vacant(final)
        os.rename(work, final)
    else:
        os.rename(final, aside)
        try:
            os.rename(work, final)
        except OSError:
            os.rename(aside, final)
            raise
        _carry_over(aside, final)
    (final / LOCK).unlink(missing_ok=True)


def _heal(final: Path, aside: Path) -> None:
    """Finish a replacement that was cut off: the old result comes back, or goes for good."""
    if _is_vacant(aside):
        _drop_vacant(aside)
    elif _read_marker(aside) is None:
        raise OutputError(f"{aside}: this name is needed for replaced results; move the files away")
    elif _is_vacant(final):
        _drop_vacant(final)
        os.rename(aside, final)
    else:
        _carry_over(aside, final)


def _carry_over(aside: Path, final: Path) -> None:
    """Delete the files that an old result lists, and move all others into the new one."""
    marker = _read_marker(aside)
    listed = {*(marker.files if marker else ()), LOCK}
    kept = []
    for name in list(_entries(aside)):
        if str(name) in listed:
            (aside / name).unlink()
        elif str(name) != MARKER:
            target = _free_place(final, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(aside / name, target)
            kept.append(str(target.relative_to(final)))
    if kept:
        more = ", ..." if len(kept) > SHOWN else ""
        LOGGER.warning(
            "%s: kept %d files that are not of this result: %s%s",
            final, len(kept), ", ".join(kept[:SHOWN]), more,
        )  # fmt: skip
    (aside / MARKER).unlink()
    _drop_vacant(aside)


def _free_place(final: Path, name: Path) -> Path:
    """Where a file of another's goes: under its own name, or, where that is taken, in `kept-1`."""
    target, number = final / name, 0
    while os.path.lexists(target) or not all(
        place.is_dir() and not place.is_symlink()
        for place in target.parents
        if place.is_relative_to(final) and os.path.lexists(place)
    ):
        number += 1
        target = final / f"kept-{number}" / name
    return target
