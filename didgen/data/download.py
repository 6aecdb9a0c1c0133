"""Archives of a source: downloaded or found, verified, and verified again whenever they change.

What a file's bytes must be is said, in this order, by the `SHA256SUMS` of the mirror, by the
catalog (for the challenge's own buckets), and by `archives.lock.json`, where every file is recorded
on first use and compared ever after.
"""

import logging
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from didgen.data import web
from didgen.data.archives import ArchiveError
from didgen.data.checksums import (
    SUMS_NAME,
    ArchiveLock,
    ChecksumError,
    Entry,
    Expected,
    examine,
    read_sums,
)
from didgen.data.files import OutOfSpace
from didgen.data.sources.catalog import BUCKETS, Archive
from didgen.data.transfer import Client, Patience, Stopped
from didgen.data.transfer_progress import TransferProgress, readable
from didgen.data.web import DownloadError, Unavailable

LOGGER = logging.getLogger(__name__)
# Left free for everything else that writes to the same disk.
_SPARE_BYTES = 100 * 10**6


@dataclass(frozen=True)
class Fetched:
    """A verified archive. `downloaded`: bytes came over the net in this call."""

    name: str
    path: Path
    size: int
    sha256: str
    origin: str
    checked_by: str
    downloaded: bool


def is_url(mirror: str | None) -> bool:
    """Whether a mirror is an address (of the challenge, when None) and not a folder."""
    return mirror is None or "://" in mirror


def archives_folder(mirror: str | None, archives: Path | str) -> Path:
    """Where the archives lie: in the mirror itself when it is a folder, else in `archives`."""
    return Path(archives) if is_url(mirror) else Path(mirror)


def fetch_archives(
    wanted: Sequence[Archive],
    archives: Path | str,
    mirror: str | None = None,
    offline: bool = False,
    workers: int = 4,
    patience: Patience = Patience(),  # noqa: B008 (frozen)
) -> list[Fetched]:
    """Have all archives, whole and verified, and say where they are, in the order of `wanted`.

    `archives`: folder of the downloads and of `archives.lock.json`; `mirror`: address or folder
    that has the archives under their official names, None for the challenge's own buckets. A
    folder is used in place. Several processes may fetch into one folder at once.
    Raises: `DownloadError` (several faults in one message), `OutOfSpace`.
    """
    fetch = _Fetch(Path(archives), mirror, offline, patience)
    try:
        return fetch.all(wanted, workers)
    finally:
        fetch.progress.close()


class _Fetch:
    """One call of `fetch_archives`."""

    def __init__(self, archives: Path, mirror: str | None, offline: bool, patience: Patience):
        self.mirror, self.offline, self.patience = mirror, offline, patience
        self.folder, self.lock = archives_folder(mirror, archives), ArchiveLock(archives)
        self.bases = BUCKETS if mirror is None else (mirror,) if is_url(mirror) else ()
        self.official = mirror is None or mirror.rstrip("/") in BUCKETS
        self.stop, self.sums = threading.Event(), {}
        self.progress = TransferProgress("download", 0, None)
        if mirror is not None and is_url(mirror) and not mirror.startswith(("http://", "https://")):
            raise DownloadError(
                f"mirror: found {web.shown(mirror)!r}, expected http://, https:// or the path of a "
                "folder"
            )
        if not is_url(mirror) and not self.folder.is_dir():
            raise DownloadError(f"mirror: {self.folder} is no folder; correct data.mirror")

    def all(self, wanted: Sequence[Archive], workers: int) -> list[Fetched]:
        recorded = all([self.lock.entry(self._path(archive)) for archive in wanted])
        absent = [archive for archive in wanted if not self._path(archive).is_file()]
        if absent and (self.offline or not self.bases):
            raise DownloadError(self._missing(absent, len(wanted)))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.sums = self._read_sums(settled=recorded and not absent)
        if absent:
            sizes = self._each(self._size, absent, workers)
            self._check_space(absent, sizes)
            total = sum(map(int, sizes)) if all(sizes) else None
            self.progress = TransferProgress("download", len(absent), total)
        return self._each(self._one, wanted, workers)

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
        if faults:
            shown = "\n  ".join(str(faults[a.name]) for a in archives if a.name in faults)
            raise DownloadError(
                f"{len(faults)} of {len(archives)} archives cannot be used:\n  {shown}"
            ) from next(iter(faults.values()))
        return [job.result() for job in jobs]

    def _path(self, archive: Archive) -> Path:
        return self.folder / archive.name

    def _client(self) -> Client:
        return Client(self.patience, self.stop, LOGGER.warning)

    def _read_sums(self, settled: bool) -> dict[str, str]:
        """The checksums that the mirror offers; a server is not asked when all is `settled`."""
        if not self.bases:
            path = self.folder / SUMS_NAME
            return read_sums(path.read_text(), str(path)) if path.is_file() else {}
        if self.official or self.offline or settled:
            return {}
        url = web.address(self.mirror, SUMS_NAME)
        text = self._client().text(url)
        if text is None:
            LOGGER.info("%s: none; archives are recorded on first use", web.shown(url))
            return {}
        return read_sums(text, web.shown(url))

    def _expected(self, archive: Archive) -> Expected | None:
        if archive.name in self.sums:
            where = str(self.folder) if not self.bases else web.shown(self.mirror)
            return Expected(self.sums[archive.name], f"{SUMS_NAME} of {where}")
        if self.official and archive.sha256:
            return Expected(archive.sha256, "the catalog")
        return None

    def _missing(self, absent: Sequence[Archive], count: int) -> str:
        lines = []
        for archive in absent:
            urls = [web.shown(web.address(base, archive.name)) for base in self.bases]
            line = f"put it at {self._path(archive)} ; it comes from "
            line += " or ".join(urls or archive.urls)
            wanted = self._expected(archive)
            lines.append(line + (f" ; its SHA-256 is {wanted.sha256}" if wanted else ""))
        why = "offline" if self.offline else f"the mirror is the folder {self.folder}"
        return f"{len(absent)} of {count} archives are missing ({why}):\n  " + "\n  ".join(lines)

    def _size(self, archive: Archive) -> int | None:
        """The bytes a server says the archive has. Raises: `DownloadError` when none has it."""
        return self._first(archive, lambda client, url: client.size(url))

    def _first(self, archive: Archive, ask: Callable) -> object:
        """Ask one server after another; the first that has the file answers."""
        client, refusals = self._client(), []
        for base in self.bases:
            try:
                return ask(client, web.address(base, archive.name))
            except Unavailable as error:
                refusals.append(str(error))
        raise DownloadError(
            f"{archive.name}: not to be had; {' ; '.join(refusals)}. Correct data.mirror, try "
            f"later, or put the file at {self._path(archive)}"
        )

    def _check_space(self, absent: Sequence[Archive], sizes: Sequence[int | None]) -> None:
        # Rounded sizes are those of the challenge's archives, not of another mirror's.
        needed = sum(
            size or (archive.about_bytes if self.official else 0)
            for archive, size in zip(absent, sizes, strict=True)
        )
        parts = [self._part(archive) for archive in absent]
        needed -= sum(part.stat().st_size for part in parts if part.is_file())
        free = shutil.disk_usage(self.folder).free
        if needed + _SPARE_BYTES > free:
            raise OutOfSpace(
                f"{self.folder}: {len(absent)} archives need {readable(needed)} more, found "
                f"{readable(free)} free; free some space or set data.archives to another disk"
            )

    def _part(self, archive: Archive) -> Path:
        return self._path(archive).with_name(f"{archive.name}.part")

    def _one(self, archive: Archive) -> Fetched:
        path, expected = self._path(archive), self._expected(archive)
        known = self._agreed(archive, expected)
        if path.is_file():
            return _fetched(path, self._verify(path, known, expected), downloaded=False)
        with self._alone(archive):
            # Another process may have fetched it meanwhile.
            if path.is_file():
                return _fetched(path, self._verify(path, known, expected), downloaded=False)
            wanted = expected or (known and Expected(known.sha256, self.lock.path.name))
            entry = self._download(archive, wanted)
            self.lock.record(path, entry)
            LOGGER.info("%s: %s, checked by %s", path.name, readable(entry.size), entry.checked_by)
            return _fetched(path, entry, downloaded=True)

    def _agreed(self, archive: Archive, expected: Expected | None) -> Entry | None:
        """What is recorded of a file, if it does not contradict what is expected."""
        known, path = self.lock.entry(self._path(archive)), self._path(archive)
        if known and expected and known.sha256 != expected.sha256:
            raise ChecksumError(
                f"{path}: {self.lock.path} records SHA-256 {known.sha256} (from {known.origin}), "
                f"but {expected.by} says {expected.sha256}; choose another folder for this mirror "
                "(data.archives), or, when the change is meant, remove the file and its record"
            )
        return known

    def _verify(self, path: Path, known: Entry | None, expected: Expected | None) -> Entry:
        """Compare a file that is here with what it must be; hash it only if it may have changed."""
        state = path.stat()
        if known and (known.size, known.mtime_ns) == (state.st_size, state.st_mtime_ns):
            return known
        wanted = expected or (known and Expected(known.sha256, str(self.lock.path)))
        entry = examine(path, wanted, known.origin if known else str(path.absolute()))
        if known:
            entry = replace(entry, checked_by=known.checked_by)
        self.lock.record(path, entry)
        return entry

    def _download(self, archive: Archive, wanted: Expected | None, again: bool = True) -> Entry:
        part, path = self._part(archive), self._path(archive)

        def notify(done: int, total: int | None) -> None:
            self.progress.at(archive.name, done, total)

        def ask(client: Client, url: str) -> tuple[bool, str]:
            return client.download(url, part, notify, trusted=wanted is not None), web.shown(url)

        went_on, origin = self._first(archive, ask)
        try:
            entry = examine(part, wanted, origin, path.suffix)
        except (ChecksumError, ArchiveError) as error:
            part.unlink()
            if went_on and again:
                LOGGER.warning("%s; it came in pieces: fetching it once more as a whole", error)
                return self._download(archive, wanted, again=False)
            raise DownloadError(
                f"{archive.name} from {origin}: {error}; the bytes were deleted. Try again later, "
                "or use another mirror"
            ) from error
        self.progress.finish(archive.name)
        part.chmod(0o644)
        part.replace(path)
        return entry

    def _alone(self, archive: Archive) -> FileLock:
        """The lock of an archive's download, once it is ours."""
        lock = FileLock(self.folder / f".{archive.name}.lock", timeout=0)
        try:
            return lock.acquire()
        except Timeout:
            LOGGER.info("%s: another process is fetching it; waiting", archive.name)
        while not self.stop.is_set():
            try:
                return lock.acquire(timeout=0.5)
            except Timeout:
                continue
        raise Stopped


def _fetched(path: Path, entry: Entry, downloaded: bool) -> Fetched:
    return Fetched(
        path.name, path, entry.size, entry.sha256, entry.origin, entry.checked_by, downloaded
    )
