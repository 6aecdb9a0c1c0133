"""What an archive's bytes must be: checksum lists of mirrors, and the lock file of first use."""

import json
import logging
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from didgen.data.archives import check_archive
from didgen.runtime.files import read_json, sha256_file, write_json

LOGGER = logging.getLogger(__name__)
LOCK_NAME = "archives.lock.json"
SUMS_NAME = "SHA256SUMS"
_LINE = re.compile(r"\\?([0-9a-fA-F]{64}) [ *](?:\./)?(.+)$")


class ChecksumError(ValueError):
    """Bytes that are not those expected, or a list of checksums that cannot be read."""


@dataclass(frozen=True)
class Expected:
    """A SHA-256 in hexadecimal digits, and in words who says so."""

    sha256: str
    by: str


@dataclass(frozen=True)
class Entry:
    """What is known of a file: size in bytes, SHA-256, where it came from, what it was checked by.

    `mtime_ns` is its time of change when it was last hashed: as long as size and time stay, it
    need not be hashed again.
    """

    size: int
    sha256: str
    mtime_ns: int
    origin: str
    checked_by: str


class ArchiveLock:
    """`archives.lock.json` of a folder: every archive's checksum, recorded on first use.

    Files of the folder are listed by name, others (of a mirror that is a folder) by their path.
    """

    def __init__(self, folder: Path) -> None:
        """The file appears with the first record."""
        self._folder, self.path = folder, folder / LOCK_NAME

    def entry(self, file: Path) -> Entry | None:
        """What is recorded of a file. Raises: `ChecksumError` when the lock file is damaged."""
        return self._read().get(self._key(file))

    def record(self, file: Path, entry: Entry) -> None:
        """Record a file; safe beside other processes that do the same."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self._folder / f".{LOCK_NAME}.lock"):
            entries = {**self._read(), self._key(file): entry}
            files = {key: asdict(entries[key]) for key in sorted(entries)}
            write_json(self.path, {"version": 1, "files": files})

    def _key(self, file: Path) -> str:
        file = file.absolute()
        return file.name if file.parent == self._folder.absolute() else str(file)

    def _read(self) -> dict[str, Entry]:
        if not self.path.is_file():
            return {}
        try:
            return {key: Entry(**values) for key, values in read_json(self.path)["files"].items()}
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
            raise ChecksumError(
                f"{self.path}: not a lock file of this program; restore it from a copy, or delete "
                "it so that the archives are recorded anew"
            ) from None


def read_sums(text: str, where: str) -> dict[str, str]:
    """File name -> SHA-256 of a `SHA256SUMS` list, as `sha256sum` writes it.

    Raises: `ChecksumError` for lines that are none, or names that are given two checksums.
    """
    sums: dict[str, str] = {}
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    found = [_LINE.match(line.rstrip()) for line in lines]
    bad = [number for number, match in enumerate(found, start=1) if not match]
    if bad or not found:
        first = lines[bad[0] - 1][:60] if bad else ""
        raise ChecksumError(
            f"{where}: {len(bad)} of {len(lines)} lines are no checksum (the first is {first!r}); "
            "expected what `sha256sum` writes; correct or remove the list"
        )
    for match in found:
        digest, name = match[1].lower(), match[2]
        if sums.setdefault(name, digest) != digest:
            raise ChecksumError(f"{where}: {name} has two checksums; correct the list")
    return sums


def examine(path: Path, wanted: Expected | None, origin: str, suffix: str = "") -> Entry:
    """Hash a file and look into it: a zip archive must be sound, a table no web page.

    `suffix`: what the file will end in, when its own name does not say.
    Raises: `ChecksumError`, `ArchiveError`.
    """
    if path.stat().st_size > 10**9:
        LOGGER.info("%s: computing its SHA-256", path.name)
    digest = sha256_file(path)
    if wanted and digest != wanted.sha256:
        raise ChecksumError(
            f"{path}: found SHA-256 {digest} ({path.stat().st_size} bytes), expected "
            f"{wanted.sha256}, as {wanted.by} says"
        )
    if (suffix or path.suffix) == ".zip":
        check_archive(path)
    else:
        with path.open("rb") as stream:
            if stream.read(64).lstrip().startswith(b"<"):
                raise ChecksumError(f"{path}: found a web page, expected a table")
    state = path.stat()
    by = wanted.by if wanted else "first use"
    return Entry(state.st_size, digest, state.st_mtime_ns, origin, by)
