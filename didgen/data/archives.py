"""Zip archives read in place: checked as a whole before the first byte, and never extracted.

An archive is refused for names that could leave a folder, links and other special files,
encryption, rare ways of packing, names that occur twice, members that overlap, and sizes that no
set of photographs has.
"""

import functools
import logging
import os
import re
import stat
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

LOGGER = logging.getLogger(__name__)
_DRIVE = re.compile(r"^[A-Za-z]:")
# A local file header: 30 bytes, then the name.
_HEADER = 30


class ArchiveError(ValueError):
    """An archive that is refused or damaged; the message says why, how often and what to do."""


@dataclass(frozen=True)
class Limits:
    """How much an archive may unpack to, in bytes; the largest official one holds about 11 GB."""

    members: int = 200_000
    member: int = 1 << 29
    total: int = 1 << 36
    # Small tables of zeros and ones may well shrink a hundredfold.
    ratio: float = 100.0
    ratio_from: int = 1 << 20


LIMITS = Limits()


def check_archive(path: Path | str, limits: Limits = LIMITS) -> int:
    """Check an archive's directory; return how many files it holds. Raises: `ArchiveError`."""
    archive, names = _load(Path(path), limits)
    archive.close()
    return len(names)


def members(path: Path | str, suffix: str = "", limits: Limits = LIMITS) -> list[str]:
    """The names of an archive's files that end in `suffix`, whatever its case.

    The shadow files that macOS adds (`__MACOSX/`, `._*`) are left out and counted in the log.
    Raises: `ArchiveError`.
    """
    _, names = _open(Path(path), limits)
    chosen = [name for name in names if name.lower().endswith(suffix.lower())]
    kept = [name for name in chosen if not _shadow(name)]
    if len(kept) < len(chosen):
        LOGGER.info("%s: %d shadow files of macOS left out", path, len(chosen) - len(kept))
    return kept


def read_member(path: Path | str, member: str, limits: Limits = LIMITS) -> bytes:
    """A member's bytes, all of them, so that the archive's checksum of it is always compared.

    Raises: `ArchiveError` when the archive is refused, or the archive or the member is missing or
    damaged.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise FileNotFoundError("no such archive")
        archive = _open(path, limits)[0]
        with archive.open(member) as stream:
            # Without a size, zipfile would unpack all before it cuts to the stated size.
            return stream.read(archive.getinfo(member).file_size + 1)
    # RuntimeError: compressed in a way that Python does not know.
    except (BadZipFile, zlib.error, EOFError, KeyError, RuntimeError, OSError) as error:
        raise ArchiveError(
            f"{path.name}/{member}: cannot be read from the archive ({error}); expected a "
            "whole, unencrypted zip file: fetch it again"
        ) from error


def _open(path: Path, limits: Limits) -> tuple[ZipFile, tuple[str, ...]]:
    """The opened archive and the names of its files, checked once for each state of the file."""
    try:
        status = path.stat()
    except OSError as error:
        raise ArchiveError(
            f"{path}: no readable file ({error.strerror}); fetch the archive again"
        ) from error
    # A forked process would share its parent's file position; it opens the archive anew.
    return _checked(path, (status.st_size, status.st_mtime_ns, status.st_ino, os.getpid()), limits)


# Reading the directory of 10 000 members takes longer than decoding one small photograph.
@functools.lru_cache(maxsize=8)
def _checked(path: Path, state: tuple[int, ...], limits: Limits) -> tuple[ZipFile, tuple[str, ...]]:
    return _load(path, limits)


def _load(path: Path, limits: Limits) -> tuple[ZipFile, tuple[str, ...]]:
    try:
        archive = ZipFile(path)
    except (BadZipFile, OSError, NotImplementedError, ValueError) as error:
        raise ArchiveError(
            f"{path}: not a readable zip archive ({error}); fetch it again"
        ) from None
    entries = archive.infolist()
    try:
        _check_entries(path, entries, limits)
    except ArchiveError:
        archive.close()
        raise
    return archive, tuple(entry.filename for entry in entries if not entry.is_dir())


def _check_entries(path: Path, entries: list[ZipInfo], limits: Limits) -> None:
    def refuse(offenders: list[str], what: str) -> None:
        if offenders:
            shown = ", ".join(map(repr, offenders[:5])) + (", ..." if len(offenders) > 5 else "")
            raise ArchiveError(
                f"{path}: {what}: {len(offenders)} of {len(entries)} members ({shown}); the "
                "archive is refused: fetch it again from a source that you trust"
            )

    def named(condition: Callable[[ZipInfo], object]) -> list[str]:
        return [entry.filename for entry in entries if condition(entry)]

    refuse(named(_escapes), "names that lead out of the archive's folder")
    refuse(named(_special), "links or special files")
    refuse(named(lambda entry: entry.flag_bits & 0x41), "encrypted")
    # Only these can be unpacked a piece at a time, so that a false size costs no memory.
    refuse(named(lambda entry: entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED)),
           "packed in another way than stored or deflated")  # fmt: skip
    counts = Counter(str(PurePosixPath(entry.filename)) for entry in entries)
    refuse([name for name, count in counts.items() if count > 1], "names that occur more than once")
    refuse(named(lambda entry: entry.file_size > limits.member),
           f"files of more than {limits.member} bytes")  # fmt: skip
    refuse(named(lambda entry: _swells(entry, limits)), f"packed more than {limits.ratio:g} to 1")
    total = sum(entry.file_size for entry in entries)
    if len(entries) > limits.members or total > limits.total:
        raise ArchiveError(
            f"{path}: found {len(entries)} members of {total} bytes in all, expected at most "
            f"{limits.members} of {limits.total}; the archive is refused"
        )
    refuse(_overlapping(entries), "members that share their bytes")


def _escapes(entry: ZipInfo) -> bool:
    # `orig_filename` still has what Python cuts off at a NUL.
    name = entry.orig_filename.replace("\\", "/")
    parts = name.split("/")
    return not name or name[0] == "/" or ".." in parts or "\0" in name or bool(_DRIVE.match(name))


def _special(entry: ZipInfo) -> bool:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    return kind not in (0, stat.S_IFREG, stat.S_IFDIR)


def _swells(entry: ZipInfo, limits: Limits) -> bool:
    large = entry.file_size > limits.ratio_from
    return large and entry.file_size > limits.ratio * max(entry.compress_size, 1)


def _overlapping(entries: list[ZipInfo]) -> list[str]:
    overlapping, end = [], 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if entry.header_offset < end:
            overlapping.append(entry.filename)
        end = entry.header_offset + _HEADER + entry.compress_size
    return overlapping


def _shadow(name: str) -> bool:
    path = PurePosixPath(name)
    return path.parts[:1] == ("__MACOSX",) or path.name.startswith("._")
