"""Where archives come from: the challenge's own servers, another address, or a folder."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from didgen.data import web
from didgen.data.checksums import SUMS_NAME, Entry, Expected
from didgen.data.sources.catalog import BUCKETS, Archive
from didgen.data.transfer_progress import readable
from didgen.data.web import DownloadError
from didgen.runtime.files import OutOfSpace, read_json

# Left free for everything else that writes to the same disk.
_SPARE_BYTES = 100 * 10**6


def is_url(mirror: str | None) -> bool:
    """Whether a mirror is an address (of the challenge, when None) and not a folder."""
    return mirror is None or "://" in mirror


def archives_folder(mirror: str | None, archives: Path | str) -> Path:
    """Where the archives lie: in the mirror itself when it is a folder, else in `archives`."""
    return Path(archives) if is_url(mirror) else Path(mirror)


def listed_folder(listing: Path) -> Path:
    """The folder of the archives that the list of the fetch stage names.

    Raises: `DownloadError` for a list that is none, or archives that are not as they were fetched.
    """
    try:
        told = read_json(listing)
        folder = Path(told["folder"])
        sizes = {Path(file["path"]): file["size"] for file in told["files"]}
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


@dataclass(frozen=True)
class Mirror:
    """A mirror as it is named in the settings, and the folder where its archives lie or will lie.

    bases: addresses to ask in turn, none for a folder; official: the challenge's own servers, whose
    files the catalog describes.
    """

    folder: Path
    bases: tuple[str, ...]
    official: bool

    @classmethod
    def of(cls, mirror: str | None, archives: Path | str) -> "Mirror":
        """Read the setting. Raises: `DownloadError` for what is neither address nor folder."""
        folder = archives_folder(mirror, archives)
        if mirror is None:
            return cls(folder, BUCKETS, True)
        if is_url(mirror):
            web.check_address(mirror, "mirror")
            return cls(folder, (mirror,), mirror.rstrip("/") in BUCKETS)
        if not folder.is_dir():
            raise DownloadError(f"mirror: {folder} is no folder; correct data.mirror")
        return cls(folder, (), False)

    @property
    def shown(self) -> str:
        """Its name in messages."""
        return " or ".join(map(web.shown, self.bases)) if self.bases else str(self.folder)

    def path(self, archive: Archive) -> Path:
        """Where an archive lies, or will lie."""
        return self.folder / archive.name

    def addresses(self, archive: Archive) -> list[str]:
        """Where an archive can be asked for; none where the mirror is a folder."""
        return [web.address(base, archive.name) for base in self.bases]

    def part(self, archive: Archive) -> Path:
        """Where the bytes of an unfinished transfer lie."""
        return self.path(archive).with_name(f"{archive.name}.part")

    def gave(self, archive: Archive, entry: Entry | None) -> bool:
        """Whether a file is this mirror's own, for all that is recorded: not another server's."""
        ours = [web.shown(url) for url in self.addresses(archive)]
        return not (self.bases and entry and "://" in entry.origin and entry.origin not in ours)

    def check_space(self, absent: Sequence[Archive], sizes: Sequence[int | None]) -> int | None:
        """Compare what is to come with the free space; the bytes of all. Raises: `OutOfSpace`.

        sizes: bytes of each archive as its server says, None where it does not.
        """
        # Rounded sizes are those of the challenge's archives, not of another mirror's.
        needed = sum(
            size or (archive.about_bytes if self.official else 0)
            for archive, size in zip(absent, sizes, strict=True)
        )
        parts = [self.part(archive) for archive in absent]
        needed -= sum(part.stat().st_size for part in parts if part.is_file())
        free = shutil.disk_usage(self.folder).free
        if needed + _SPARE_BYTES > free:
            raise OutOfSpace(
                f"{self.folder}: {len(absent)} archives need {readable(needed)} more, found "
                f"{readable(free)} free; free some space or set data.archives to another disk"
            )
        return sum(map(int, sizes)) if all(sizes) else None

    def expected(self, archive: Archive, sums: dict[str, str]) -> Expected | None:
        """The SHA-256 that an archive must have, where `SHA256SUMS` or the catalog says one."""
        if archive.name in sums:
            return Expected(sums[archive.name], f"{SUMS_NAME} of {self.shown}")
        if self.official and archive.sha256:
            return Expected(archive.sha256, "the catalog")
        return None

    def missing(self, absent: Sequence[Archive], count: int, why: str) -> str:
        """How many of `count` archives are missing and, for each, where it belongs and is found."""
        lines = []
        for archive in absent:
            urls = [web.shown(url) for url in self.addresses(archive)] or archive.urls
            line = f"put it at {self.path(archive)} ; it comes from {' or '.join(urls)}"
            wanted = self.expected(archive, {})
            lines.append(line + (f" ; its SHA-256 is {wanted.sha256}" if wanted else ""))
        return f"{len(absent)} of {count} archives are missing ({why}):\n  " + "\n  ".join(lines)
