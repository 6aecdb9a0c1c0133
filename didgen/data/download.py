"""Archives of a source: downloaded or found, verified, and verified again whenever they change.

What a file's bytes must be is said, in this order, by the `SHA256SUMS` of the mirror, by the
catalog (for the challenge's own buckets), and by `archives.lock.json`, where every file is recorded
on first use and compared ever after.
"""

import logging
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
from didgen.data.mirror import Mirror
from didgen.data.sources.catalog import Archive
from didgen.data.transfer import Client, Patience, Stopped
from didgen.data.transfer_progress import TransferProgress, readable
from didgen.data.web import DownloadError, Unavailable, Unreachable

LOGGER = logging.getLogger(__name__)


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

    @classmethod
    def of(cls, path: Path, entry: Entry, new: bool) -> "Fetched":
        """From its record."""
        return cls(path.name, path, entry.size, entry.sha256, entry.origin, entry.checked_by, new)


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
    fetch = _Fetch(Path(archives), Mirror.of(mirror, archives), offline, patience)
    try:
        return fetch.all(wanted, workers)
    finally:
        fetch.progress.close()


class _Fetch:
    """One call of `fetch_archives`."""

    def __init__(self, archives: Path, mirror: Mirror, offline: bool, patience: Patience) -> None:
        self.mirror, self.offline, self.patience = mirror, offline, patience
        self.lock = ArchiveLock(archives)
        self.stop, self.sums, self.met = threading.Event(), {}, set()
        self.progress = TransferProgress("download", 0, None)

    def all(self, wanted: Sequence[Archive], workers: int) -> list[Fetched]:
        recorded = {archive.name: self.lock.entry(self._path(archive)) for archive in wanted}
        absent = [archive for archive in wanted if not self._path(archive).is_file()]
        if absent and (self.offline or not self.mirror.bases):
            why = "offline" if self.offline else f"the mirror is the folder {self.mirror.folder}"
            raise DownloadError(self.mirror.missing(absent, len(wanted), why))
        self.mirror.folder.mkdir(parents=True, exist_ok=True)
        here = [(archive, recorded[archive.name]) for archive in wanted if archive not in absent]
        foreign = [archive for archive, known in here if not self.mirror.gave(archive, known)]
        try:
            if absent or foreign or not self.mirror.bases or not all(recorded.values()):
                self.sums = self._read_sums()
            if absent:
                sizes = self._each(self._size, absent, workers)
                total = self.mirror.check_space(absent, sizes)
                self.progress = TransferProgress("download", len(absent), total)
        except Unreachable as error:
            self._no_network(error, absent, len(wanted), all(recorded.values()))
            self.offline = True
        self._each(self._same_as_mirrors, foreign, workers)
        return self._each(self._one, wanted, workers)

    def _no_network(
        self, error: Unreachable, absent: Sequence[Archive], count: int, known: bool
    ) -> None:
        """Go on when all files are here and known. Raises: `DownloadError` that says what to do."""
        remedy = "connect this machine, or name a folder or a server that it reaches in data.mirror"
        if absent:
            why = f"{error}; {remedy}, or put the files there yourself and set data.offline: true"
            raise DownloadError(self.mirror.missing(absent, count, why)) from error
        if not known:
            raise DownloadError(
                f"{error}, so the checksums of {count} archives in {self.mirror.folder} "
                f"cannot be read; {remedy}, or set data.offline: true to take them as they are"
            ) from error
        LOGGER.warning("%s; the archives are here, unchanged since they were fetched", error)

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

    def _path(self, archive: Archive) -> Path:
        return self.mirror.path(archive)

    def _client(self) -> Client:
        return Client(self.patience, self.stop, LOGGER.warning, self.met)

    def _read_sums(self) -> dict[str, str]:
        """The checksums that the mirror offers."""
        if not self.mirror.bases:
            path = self.mirror.folder / SUMS_NAME
            return read_sums(path.read_text(), str(path)) if path.is_file() else {}
        if self.mirror.official or self.offline:
            return {}
        url = web.address(self.mirror.bases[0], SUMS_NAME)
        text = self._client().text(url)
        if text is None:
            LOGGER.info("%s: none; archives are recorded on first use", web.shown(url))
            return {}
        return read_sums(text, web.shown(url))

    def _expected(self, archive: Archive) -> Expected | None:
        return self.mirror.expected(archive, self.sums)

    def _size(self, archive: Archive) -> int | None:
        """The bytes a server says the archive has. Raises: `DownloadError` when none has it."""
        return self._first(archive, lambda client, url: client.size(url))

    def _first(self, archive: Archive, ask: Callable) -> object:
        """Ask one server after another; the first that has the file answers."""
        client, refusals = self._client(), []
        for url in self.mirror.addresses(archive):
            try:
                return ask(client, url)
            except Unavailable as error:
                refusals.append(error)
        told = " ; ".join(map(str, refusals))
        if all(isinstance(refusal, Unreachable) for refusal in refusals):
            raise Unreachable(told)
        raise DownloadError(
            f"{archive.name}: not to be had; {told}. Correct data.mirror, try later, or put the "
            f"file at {self._path(archive)}"
        )

    def _one(self, archive: Archive) -> Fetched:
        path, expected = self._path(archive), self._expected(archive)
        known = self._agreed(archive, expected)
        if path.is_file():
            return Fetched.of(path, self._verify(path, known, expected), False)
        with self._alone(archive):
            # Another process may have fetched it meanwhile.
            if path.is_file():
                return Fetched.of(path, self._verify(path, known, expected), False)
            wanted = expected or (known and Expected(known.sha256, self.lock.path.name))
            entry = self._download(archive, wanted)
            self.lock.record(path, entry)
            LOGGER.info("%s: %s, checked by %s", path.name, readable(entry.size), entry.checked_by)
            return Fetched.of(path, entry, True)

    def _same_as_mirrors(self, archive: Archive) -> None:
        """Compare a file that another mirror gave with this one's: by checksum, else by size.

        Raises: `ChecksumError` when it differs; where it cannot be compared, the log says so.
        """
        path, expected = self._path(archive), self._expected(archive)
        known = self._agreed(archive, expected)
        came = f"{path}: came from {known.origin}, and the mirror is now {self.mirror.shown}"
        if expected:
            LOGGER.info("%s: the same SHA-256, as %s says; used as it is", came, expected.by)
            return
        try:
            size = None if self.offline else self._size(archive)
        except Unreachable as error:
            LOGGER.warning("%s: %s", path.name, error)
            size = None
        if size is not None and size != known.size:
            raise ChecksumError(
                f"{came}, where it has {size} bytes instead of {known.size}; choose another folder "
                "for this mirror (data.archives), or remove the file and its record in "
                f"{self.lock.path}"
            )
        how = f"the same size, {size} bytes, there" if size else "not compared with it"
        LOGGER.warning("%s: %s; used as it is. For that mirror's own files choose another folder "
                       "(data.archives)", came, how)  # fmt: skip

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
        try:
            entry = examine(path, wanted, known.origin if known else str(path.absolute()))
        except (ChecksumError, ArchiveError) as error:
            remedy = "remove the file to fetch it again" if self.mirror.bases else "restore it"
            meant = f"; if the change is meant, remove its record from {self.lock.path}, too"
            raise ChecksumError(f"{error}; {remedy}{meant if known else ''}") from error
        if known:
            entry = replace(entry, checked_by=known.checked_by)
        self.lock.record(path, entry)
        return entry

    def _download(self, archive: Archive, wanted: Expected | None, again: bool = True) -> Entry:
        part, path = self.mirror.part(archive), self._path(archive)

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
        lock = FileLock(self.mirror.folder / f".{archive.name}.lock", timeout=0)
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
