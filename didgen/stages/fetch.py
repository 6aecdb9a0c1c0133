"""Download and verify the archives of a source."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from didgen.data.archives import members
from didgen.data.download import archives_folder, fetch_archives, is_official, readable
from didgen.data.sources.catalog import (
    TASK1_SOURCE,
    TASK3_SOURCE,
    Archive,
    needed_archives,
    provenance,
)
from didgen.runtime.files import write_json
from didgen.runtime.outputs import check_output_file
from didgen.settings.fetch import Config

LOGGER = logging.getLogger(__name__)


def run(config: Config) -> None:
    """Have every archive that the splits need, verified, and write their list.

    Raises: `DownloadError` or `ChecksumError` naming each file, where it was sought and what to do.
    """
    check_output_file(config.out, "a list of archives", _is_listing)
    wanted = needed_archives(official=config.splits == "official")
    archives = fetch_archives(
        wanted, config.archives, config.mirror, config.offline, config.workers
    )
    fetched = sum(archive.downloaded for archive in archives)
    LOGGER.info(
        "%d archives, %s: %d fetched now, %d already here and unchanged",
        len(archives), readable(sum(archive.entry.size for archive in archives)),
        fetched, len(archives) - fetched,
    )  # fmt: skip
    counts = [_count(one.path, archive) for one, archive in zip(archives, wanted, strict=True)]
    empty = [
        f"{one.path}: found no {archive.suffix} file in it"
        for one, archive, count in zip(archives, wanted, counts, strict=True)
        if not count
    ]
    if empty:
        shown = "\n  ".join(empty)
        raise ValueError(
            f"{len(empty)} of {len(wanted)} archives are empty:\n  {shown}\nuse another mirror, or "
            "remove the files to fetch them again"
        )
    _report_counts(wanted, counts, is_official(config.mirror))
    listing = {
        "source": config.source,
        "mirror": config.mirror,
        "folder": archives_folder(config.mirror, config.archives),
        "splits": config.splits,
        "files": [
            {
                "name": one.path.name,
                "path": one.path,
                "size": one.entry.size,
                "n_files": count,
                "sha256": one.entry.sha256,
                "origin": one.entry.origin,
                "checked_by": one.entry.checked_by,
                "licence": archive.licence,
            }
            for one, archive, count in zip(archives, wanted, counts, strict=True)
        ],
        "provenance": [
            asdict(known) for name in (TASK1_SOURCE, TASK3_SOURCE) if (known := provenance(name))
        ],
    }
    # Again: a name in the folder of downloads may by now be that of an archive.
    check_output_file(config.out, "a list of archives", _is_listing)
    write_json(config.out, listing)


def _is_listing(text: str) -> bool:
    keys = {"source", "mirror", "folder", "splits", "files", "provenance"}
    return json.loads(text).keys() == keys


def _count(path: Path, archive: Archive) -> int:
    """How many images, masks or tables an archive holds."""
    return 1 if archive.kind == "lesions" else len(members(path, archive.suffix))


def _report_counts(wanted: Sequence[Archive], counts: Sequence[int], official: bool) -> None:
    """Say which archives hold another number of files than the challenge's own.

    From the challenge's servers that is worth a warning, since not all checksums are known; a
    mirror may well be a reduced one.
    """
    for archive, count in zip(wanted, counts, strict=True):
        if count != archive.files:
            LOGGER.log(
                logging.WARNING if official else logging.INFO,
                "%s: holds %d %s files; the challenge states %d",
                archive.name, count, archive.suffix, archive.files,
            )  # fmt: skip
