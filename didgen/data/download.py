"""Archives of a source: downloaded or found, verified, and verified again whenever they change.

What a file's bytes must be is said, in this order, by the `SHA256SUMS` of the mirror, by the
catalog (for the challenge's own servers), and by `archives.lock.json`, where every file is recorded
on first use and compared from then on.
"""

import contextlib
import logging
import os
import re
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import quote

from tqdm import tqdm

from didgen.data.archives import ArchiveError, check_archive
from didgen.data.sources.catalog import BUCKETS, Archive
from didgen.data.transfer import (
    DownloadError,
    HttpClient,
    Patience,
    Unavailable,
    Unreachable,
    note_of,
)
from didgen.runtime.files import OutOfSpace, read_json, sha256_file, write_json
from didgen.runtime.locks import sole_writer
from didgen.runtime.outputs import check_above
from didgen.runtime.progress import Progress

T = TypeVar("T")
LOGGER = logging.getLogger(__name__)
LOCK_NAME = "archives.lock.json"
SUMS_NAME = "SHA256SUMS"
# Left free for everything else that writes to the same disk.
_SPARE_BYTES = 100 * 10**6
_SUM = re.compile(r"\\?([0-9a-fA-F]{64}) [ *](?:\./)?(.+)$")


class ChecksumError(ValueError):
    """Bytes that are not those expected, or a list of checksums that cannot be read."""


class Expected(NamedTuple):
    """A SHA-256 in hexadecimal digits, and in words who says so."""

    sha256: str
    by: str


@dataclass(frozen=True)
class Entry:
    """What is recorded of a file: size in bytes, SHA-256, where it came from, what it was checked
    by.

    `mtime_ns` is its time of change when it was last hashed: as long as size and time stay, it
    need not be hashed again.
    """

    size: int
    sha256: str
    mtime_ns: int
    origin: str
    checked_by: str

    def describes(self, file: Path) -> bool:
        """Whether a file has the size and time of change that are recorded."""
        state = file.stat()
        return (self.size, self.mtime_ns) == (state.st_size, state.st_mtime_ns)


class Fetched(NamedTuple):
    """A verified archive. `downloaded`: bytes came over the net in this call."""

    path: Path
    entry: Entry
    downloaded: bool


def is_url(mirror: str | None) -> bool:
    """Whether a mirror is an address (of the challenge, when None) and not a folder."""
    return mirror is None or "://" in mirror


def is_official(mirror: str | None) -> bool:
    """Whether a mirror is the challenge's own servers, whose files the catalog describes."""
    return mirror is None or mirror.rstrip("/") in BUCKETS


def archives_folder(mirror: str | None, archives: Path | str) -> Path:
    """Where the archives lie: in the mirror itself when it is a folder, else in `archives`."""
    return Path(archives) if mirror is None or is_url(mirror) else Path(mirror)


def listed_folder(listing: Path) -> Path:
    """The folder of the archives that the list of the fetch stage names.

    Raises: `DownloadError` for a list that is none, or archives that are not as they were fetched.
    """
    try:
        content = read_json(listing)
        folder = Path(content["folder"])
        sizes = {Path(file["path"]): file["size"] for file in content["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise DownloadError(
            f"{listing}: not a list of archives; expected the JSON that `didgen fetch` writes: run "
            "it again"
        ) from None
    changed = [p.name for p, size in sizes.items() if not p.is_file() or p.stat().st_size != size]
    if changed:
        raise DownloadError(
            f"{listing}: {len(changed)} of {len(sizes)} archives in {folder} are gone or not as "
            f"they were fetched ({', '.join(changed)}); run `didgen fetch` again, in the workflow "
            "with `--forcerun fetch`"
        )
    return folder


def readable(size: float) -> str:
    """A number of bytes with three digits and a decimal unit: 1.23GB."""
    return f"{tqdm.format_sizeof(size)}B"


def fetch_archives(
    wanted: Sequence[Archive],
    archives: Path | str,
    mirror: str | None,
    offline: bool,
    workers: int,
    patience: Patience = Patience(),  # noqa: B008 (frozen)
) -> list[Fetched]:
    """Provide all archives, whole and verified, with their places, in the order of `wanted`.

    `archives`: folder of the downloads and of `archives.lock.json`; `mirror`: address or folder
    that has the archives under their official names, None for the challenge's own servers. A
    folder is used in place. Several processes may fetch into one folder at once: one does, the
    others wait for it.
    Raises: `DownloadError` (several faults in one message), `ChecksumError`, `OutOfSpace`.
    """
    fetch = _Fetch(Path(archives), mirror, offline, patience)
    absent = fetch.absent(wanted)
    if absent and (offline or not fetch.bases):
        why = "offline" if offline else f"the mirror is the folder {fetch.folder}"
        raise DownloadError(fetch.missing(absent, len(wanted), why))
    if not absent and all(map(fetch.settled, wanted)):
        # No request and nothing written: the folder may be one that others look after.
        entries = [(path, fetch.lock.entry(path)) for path in map(fetch.path, wanted)]
        return [Fetched(path, entry, False) for path, entry in entries if entry]
    with sole_writer(archives):
        return fetch.all(wanted, workers)


class _Fetch:
    """One call of `fetch_archives`."""

    def __init__(
        self, archives: Path, mirror: str | None, offline: bool, patience: Patience
    ) -> None:
        self.offline, self.patience = offline, patience
        self.folder = archives_folder(mirror, archives)
        self.official = is_official(mirror)
        self.bases: tuple[str, ...] = ()
        if self.official:
            self.bases = BUCKETS
        elif mirror is not None and is_url(mirror):
            self.bases = (mirror,)
        check_above(archives / LOCK_NAME)
        if not self.bases and not self.folder.is_dir():
            raise DownloadError(f"mirror: {self.folder} is no folder; correct data.mirror")
        self.shown = " or ".join(self.bases) or str(self.folder)
        self.lock, self.sums, self.stop = ArchiveLock(archives), {}, threading.Event()
        self.progress: Progress | None = None
        self.there, self.counting = dict[str, int](), threading.Lock()

    def path(self, archive: Archive) -> Path:
        """Where an archive lies, or will lie."""
        return self.folder / archive.name

    def absent(self, wanted: Sequence[Archive]) -> list[Archive]:
        """The archives that are not here."""
        return [archive for archive in wanted if not self.path(archive).is_file()]

    def settled(self, archive: Archive) -> bool:
        """Whether an archive that is here is unchanged since it was verified, and this mirror's."""
        known = self.lock.entry(self.path(archive))
        if not known:
            return False
        return known.describes(self.path(archive)) and self._ours(archive, known)

    def all(self, wanted: Sequence[Archive], workers: int) -> list[Fetched]:
        """Fetch what is absent, and verify everything."""
        absent = self.absent(wanted)
        try:
            self.sums = self._read_sums()
            sizes = self._each(self._size, absent, workers)
        except Unreachable as error:
            self._no_network(error, wanted, absent)
            self.offline = True
        else:
            there = self._check_space(absent, sizes)
            if absent:
                total = round(sum(sizes) / 1e6) if all(sizes) else None
                label = f"downloading {len(absent)} archives, MB"
                self.progress = Progress(label, total, round(there / 1e6))
        with self.progress or contextlib.nullcontext():
            return self._each(self._one, wanted, workers)

    def _ours(self, archive: Archive, known: Entry) -> bool:
        """Whether a recorded file may be used as this mirror's: no other server gave it."""
        origins = self._addresses(archive)
        return not origins or self.offline or known.origin in origins or "://" not in known.origin

    def _addresses(self, archive: Archive) -> list[str]:
        return [f"{base.rstrip('/')}/{quote(archive.name)}" for base in self.bases]

    def _client(self) -> HttpClient:
        return HttpClient(self.patience, self.stop)

    def _read_sums(self) -> dict[str, str]:
        """The checksums that the mirror offers. Raises: `ChecksumError`, `Unreachable`."""
        if not self.bases:
            path = self.folder / SUMS_NAME
            text = path.read_text("utf-8", errors="replace") if path.is_file() else None
            return {} if text is None else read_sums(text, str(path))
        if self.official or self.offline:
            return {}
        url = f"{self.bases[0].rstrip('/')}/{SUMS_NAME}"
        text = self._client().text(url)
        if text is None:
            LOGGER.info("%s: none; archives are recorded on first use", url)
            return {}
        return read_sums(text, url)

    def _no_network(
        self, error: Unreachable, wanted: Sequence[Archive], absent: Sequence[Archive]
    ) -> None:
        """Go on when all files are here and known. Raises: `DownloadError` that says what to do."""
        remedy = "connect this machine, or name a folder or a server that it reaches in data.mirror"
        if absent:
            why = f"{error}; {remedy}, or put the files there yourself and set data.offline: true"
            raise DownloadError(self.missing(absent, len(wanted), why)) from error
        if not all(self.lock.entry(self.path(archive)) for archive in wanted):
            raise DownloadError(
                f"{error}, so the checksums of {len(wanted)} archives in {self.folder} cannot be "
                f"read; {remedy}, or set data.offline: true to take them as they are"
            ) from error
        LOGGER.warning("%s; the archives are here, and compared with their records", error)

    def _each(self, work: Callable, archives: Sequence[Archive], workers: int) -> list:
        """Do the work for each archive in threads; one's fault leaves the others to be finished."""
        faults: dict[str, Exception] = {}
        with ThreadPoolExecutor(workers) as pool:
            jobs = {pool.submit(work, archive): archive.name for archive in archives}
            try:
                for job in as_completed(jobs):
                    fault = job.exception()
                    if isinstance(fault, DownloadError | ChecksumError | ArchiveError):
                        LOGGER.error("%s", fault)
                        faults[jobs[job]] = fault
                    elif fault:
                        raise fault
            except BaseException:
                # An interrupt, a full disk: end the transfers at their next bytes.
                self.stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if faults and all(isinstance(fault, Unreachable) for fault in faults.values()):
            raise next(iter(faults.values()))
        if faults:
            shown = "\n  ".join(str(faults[a.name]) for a in archives if a.name in faults)
            raise DownloadError(
                f"{len(faults)} of {len(archives)} archives cannot be used:\n  {shown}"
            ) from next(iter(faults.values()))
        return [job.result() for job in jobs]

    def _first(self, archive: Archive, request: Callable[[HttpClient, str], T]) -> T:
        """Ask one server after another; the first that has the file answers."""
        client, refusals = self._client(), []
        for url in self._addresses(archive):
            try:
                return request(client, url)
            except Unavailable as error:
                refusals.append(error)
        reasons = " ; ".join(map(str, refusals))
        if all(isinstance(refusal, Unreachable) for refusal in refusals):
            raise Unreachable(reasons)
        raise DownloadError(
            f"{archive.name}: not to be had; {reasons}. Correct data.mirror, try later, or put the "
            f"file at {self.path(archive)}"
        )

    def _size(self, archive: Archive) -> int | None:
        """The bytes a server says the archive has. Raises: `DownloadError` when none has it."""
        return self._first(archive, lambda client, url: client.size(url))

    def _check_space(self, absent: Sequence[Archive], sizes: Sequence[int | None]) -> int:
        """Compare what is to come with the free space; the bytes that are here. Raises:
        `OutOfSpace`.
        """
        # Rounded sizes are those of the challenge's archives, not of another mirror's.
        needed = sum(
            size or (archive.about_bytes if self.official else 0)
            for archive, size in zip(absent, sizes, strict=True)
        )
        parts = [_part(self.path(archive)) for archive in absent]
        there = sum(part.stat().st_size for part in parts if part.is_file())
        free = shutil.disk_usage(self.folder).free
        if absent and needed - there + _SPARE_BYTES > free:
            raise OutOfSpace(
                f"{self.folder}: {len(absent)} archives need {readable(needed - there)} more, "
                f"found {readable(free)} free; free some space or set data.archives to another disk"
            )
        return there

    def _expected(self, archive: Archive) -> Expected | None:
        """The SHA-256 that an archive must have, where `SHA256SUMS` or the catalog says one."""
        if archive.name in self.sums:
            return Expected(self.sums[archive.name], f"{SUMS_NAME} of {self.shown}")
        if self.official and archive.sha256:
            return Expected(archive.sha256, "the catalog")
        return None

    def _one(self, archive: Archive) -> Fetched:
        """Fetch or verify one archive. Raises: `DownloadError`, `ChecksumError`."""
        path, expected = self.path(archive), self._expected(archive)
        known = self.lock.entry(path)
        if known and expected and known.sha256 != expected.sha256:
            raise ChecksumError(
                f"{path}: {self.lock.path} records SHA-256 {known.sha256} (from {known.origin}), "
                f"but {expected.by} says {expected.sha256}; choose another folder for this mirror "
                "(data.archives), or, when the change is meant, remove the file and its record"
            )
        if not path.is_file():
            wanted = expected or (Expected(known.sha256, LOCK_NAME) if known else None)
            return Fetched(path, self._download(archive, wanted), True)
        if known and not expected and not self._ours(archive, known):
            raise ChecksumError(
                f"{path}: came from {known.origin}, and the mirror is now {self.shown}, which has "
                f"no {SUMS_NAME} that shows they are the same; choose another folder for this "
                f"mirror (data.archives), or remove the file and its record in {self.lock.path}"
            )
        if known and known.describes(path):
            return Fetched(path, known, False)
        wanted = expected or (Expected(known.sha256, str(self.lock.path)) if known else None)
        try:
            entry = examine(path, wanted, known.origin if known else str(path.absolute()))
        except (ChecksumError, ArchiveError) as error:
            remedy = "remove the file to fetch it again" if self.bases else "restore it"
            meant = f"; if the change is meant, remove its record from {self.lock.path}, too"
            raise ChecksumError(f"{error}; {remedy}{meant if known else ''}") from error
        if known:
            entry = replace(entry, checked_by=known.checked_by)
        self.lock.record(path, entry)
        return Fetched(path, entry, False)

    def _download(self, archive: Archive, wanted: Expected | None) -> Entry:
        path, part = self.path(archive), _part(self.path(archive))
        if os.path.lexists(path):
            raise DownloadError(
                f"{path}: found a folder, a special file or a link to nothing, expected an archive "
                "or nothing; move it away"
            )

        def note(done: int) -> None:
            if self.progress is not None:
                with self.counting:
                    self.there[archive.name] = done
                    self.progress.reach(round(sum(self.there.values()) / 1e6))

        def download(client: HttpClient, url: str) -> str:
            client.download(url, part, note)
            return url

        origin = self._first(archive, download)
        try:
            entry = examine(part, wanted, origin, path.suffix)
        except (ChecksumError, ArchiveError) as error:
            part.unlink()
            note_of(part).unlink(missing_ok=True)
            raise DownloadError(
                f"{archive.name} from {origin}: {error}; the bytes were deleted. Try again later, "
                "or use another mirror"
            ) from error
        part.replace(path)
        note_of(part).unlink(missing_ok=True)
        self.lock.record(path, entry)
        LOGGER.info("%s: %s, checked by %s", path.name, readable(entry.size), entry.checked_by)
        return entry

    def missing(self, absent: Sequence[Archive], count: int, why: str) -> str:
        """How many of `count` archives are missing and, for each, where it belongs and is found."""
        lines = []
        for archive in absent:
            urls = self._addresses(archive) or archive.urls
            line = f"put it at {self.path(archive)} ; it comes from {' or '.join(urls)}"
            wanted = self._expected(archive)
            lines.append(line + (f" ; its SHA-256 is {wanted.sha256}" if wanted else ""))
        return f"{len(absent)} of {count} archives are missing ({why}):\n  " + "\n  ".join(lines)


class ArchiveLock:
    """`archives.lock.json` of a folder: every archive's checksum, recorded on first use.

    Files of the folder are listed by name, others (of a mirror that is a folder) by their path.
    One process at a time writes it, in several threads.
    """

    def __init__(self, folder: Path) -> None:
        """The file appears with the first record. Raises: `ChecksumError` when it is damaged."""
        self._folder, self.path, self._threads = folder, folder / LOCK_NAME, threading.Lock()

    def entry(self, file: Path) -> Entry | None:
        """What is recorded of a file. Raises: `ChecksumError` when the lock file is damaged."""
        return self._read().get(self._key(file))

    def record(self, file: Path, entry: Entry) -> None:
        """Record a file."""
        with self._threads:
            entries = {**self._read(), self._key(file): entry}
            files = {key: asdict(entries[key]) for key in sorted(entries)}
            write_json(self.path, {"version": 1, "files": files})

    def _key(self, file: Path) -> str:
        file = file.absolute()
        return file.name if file.parent == self._folder.absolute() else str(file)

    def _read(self) -> dict[str, Entry]:
        if not os.path.lexists(self.path):
            return {}
        try:
            return {key: Entry(**values) for key, values in read_json(self.path)["files"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
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
    matches = [_SUM.match(line.rstrip()) for line in lines]
    bad = [line for line, match in zip(lines, matches, strict=True) if not match]
    if bad or not lines:
        fault = (
            f"{len(bad)} of {len(lines)} lines are no checksum (the first is {bad[0][:60]!r})"
            if bad
            else "is empty"
        )
        raise ChecksumError(
            f"{where}: {fault}; expected what `sha256sum` writes; correct or remove the list"
        )
    for match in filter(None, matches):
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
    return Entry(
        state.st_size, digest, state.st_mtime_ns, origin, wanted.by if wanted else "first use"
    )


def _part(path: Path) -> Path:
    """Where the bytes of an unfinished transfer lie."""
    return path.with_name(f"{path.name}.part")
