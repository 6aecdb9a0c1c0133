"""What lies in a folder: images, masks beside them, tables, and what is left aside."""

import logging
from collections import Counter
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from didgen.data.changes import walk
from didgen.data.images import CONVERT_DICOM
from didgen.data.sources.records import SourceError
from didgen.data.sources.tables import refuse

LOGGER = logging.getLogger(__name__)
IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".png", ".tif", ".tiff", ".bmp", ".webp", ".jp2", ".gif", ".ppm")
)
MASK_ENDINGS = ("_segmentation", "_mask")
_NAMED_TABLES = frozenset((".csv", ".tab", ".tsv", ".txt", ".xlsx"))
TABLE_SUFFIXES = _NAMED_TABLES | {""}
_UNREADABLE = {
    ".dcm": CONVERT_DICOM,
    ".dicom": CONVERT_DICOM,
    ".heic": "convert them to JPEG",
    ".heif": "convert them to JPEG",
}


@dataclass
class Listing:
    """The files under a folder, in order of their paths; without the hidden ones.

    `masks` are images whose name ends in one of the mask endings; `unreadable` holds by extension
    the images of formats that are not read; `others` counts by extension what is none of these.
    """

    folder: Path
    images: list[Path] = field(default_factory=list)
    masks: list[Path] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    unreadable: dict[str, list[Path]] = field(default_factory=dict)

    def refuse_unreadable(self) -> None:
        """Raise `SourceError` when there are images of a format that is not read (DICOM, HEIC),
        with their count and how to convert them.
        """
        for suffix, paths in self.unreadable.items():
            names = [path.relative_to(self.folder) for path in paths]
            refuse(names, f"{self.folder}: {suffix} images", _UNREADABLE[suffix], "files")

    def table(self, *patterns: str) -> Path | None:
        """The file whose name matches the first pattern that any does; of several the one nearest
        to the top. Upper and lower case are the same. Raises: `SourceError` when two are as near.
        """
        for pattern in patterns:
            matches = [p for p in self.tables if fnmatch(p.name.lower(), pattern.lower())]
            nearest = min((len(path.parts) for path in matches), default=0)
            matches = [path for path in matches if len(path.parts) == nearest]
            if len(matches) > 1:
                refuse(
                    matches,
                    f"{self.folder}: more than one {pattern}",
                    "keep the one to use",
                    "files",
                )
            if matches:
                return matches[0]
        return None


def list_files(folder: Path | str, mask_endings: tuple[str, ...] = MASK_ENDINGS) -> Listing:
    """Look through a folder and all below it, links followed, extensions in any case.

    Raises: `SourceError` when there is no such folder, a folder below it cannot be read or has two
    names, or what is named as an image or a table is no regular file or no UTF-8.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder; set data.folder to the folder of your images")
    listing, below = Listing(folder), walk(folder)
    refuse(
        [f"{place}: {reason}" for place, reason in sorted(below.unreadable.items())],
        f"{folder}: folders whose files cannot be listed",
        "allow this user to read them, keep one name of each, or move them elsewhere",
        "folders",
    )
    refuse(
        [path for path in map(Path, sorted(below.special)) if _is_named_as_data(path)],
        f"{folder}: broken links, pipes, sockets or devices under the name of an image or table",
        "replace each by its file, or remove it",
        "files",
    )
    listing.others.update(Path(path).suffix.lower() for path in below.special)
    for path in sorted(map(Path, below.files)):
        suffix = path.suffix.lower()
        if suffix in IMAGE_SUFFIXES:
            is_mask = path.stem.lower().endswith(mask_endings)
            (listing.masks if is_mask else listing.images).append(path)
        elif suffix in _UNREADABLE:
            listing.unreadable.setdefault(suffix, []).append(path)
        elif suffix not in _NAMED_TABLES and _is_dicom(path):
            listing.unreadable.setdefault(".dcm", []).append(path)
        elif suffix in TABLE_SUFFIXES:
            listing.tables.append(path)
        else:
            listing.others[suffix] += 1
    refuse(
        [path for path in (*listing.images, *listing.masks, *listing.tables) if not _is_utf8(path)],
        f"{folder}: names that are not UTF-8",
        "rename them: manifests and reports are UTF-8",
        "files",
    )
    if listing.others:
        counts = ", ".join(f"{ending} {n}" for ending, n in sorted(listing.others.items()))
        total = sum(listing.others.values())
        LOGGER.info("%s: %d files left aside by extension: %s", folder, total, counts)
    return listing


def _is_named_as_data(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES | _NAMED_TABLES | set(_UNREADABLE)


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_dicom(path: Path) -> bool:
    """Scanners write DICOM without an extension, or with a piece of a number as one."""
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False
