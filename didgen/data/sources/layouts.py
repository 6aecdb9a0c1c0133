"""Reads a published data set, unpacked in a folder, by a description of its layout."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from didgen.data.sources.listing import IMAGE_SUFFIXES, Listing, list_files
from didgen.data.sources.records import FilePixels, Record, SourceError
from didgen.data.sources.tables import (
    check_ids,
    check_text,
    pick_columns,
    read_table,
    refuse,
    split_names,
)

LOGGER = logging.getLogger(__name__)


def read_tables(listing: Listing, layout: "Layout") -> pd.DataFrame:
    """All tables of the layout that are there, one under the other, columns under our names."""
    parts = []
    for number, names in enumerate(layout.tables):
        path = listing.table(*names)
        if path is None and number == 0:
            raise SourceError(missing_table(listing, layout, names))
        if path is not None:
            # Test sets are published without diagnoses: only the first table must have all.
            needed = layout.needed if number == 0 else ("id",)
            parts.append(pick_columns(read_table(path), layout.columns, needed, path))
    return pd.concat(parts)


@dataclass(frozen=True)
class Layout:
    """What a data set calls its files, columns and diagnoses.

    tables: all that are read, each with its alternative names; the first must be there.
    columns: ours to theirs, alternatives in order of preference.
    diagnoses: theirs in lower case to an ISIC 2018 code, or to "" where that has no class.
    mask_ending: what a mask's name has more than its image's; optional_ending: what the files may
    have more, or less, than the table. note: said in the log whenever the set is read. needed: the
    columns that the first table must have. read: gives one table with columns id, label, lesion_id,
    patient_id and split.
    """

    source: str
    tables: tuple[tuple[str, ...], ...]
    columns: Mapping[str, tuple[str, ...]]
    diagnoses: Mapping[str, str]
    mask_ending: str = "_segmentation"
    optional_ending: str = ""
    note: str = ""
    needed: tuple[str, ...] = ("id", "label")
    read: Callable[[Listing, "Layout"], pd.DataFrame] = read_tables


def published_records(folder: Path | str, layout: Layout) -> list[Record]:
    """Records of a data set in its published layout, in the order of its table.

    Images with a diagnosis that has no class of ISIC 2018 are marked as excluded, counted in the
    log; their files need not be there.
    Raises: `SourceError`, with counts, for tables, columns, names or files that do not fit.
    """
    listing = list_files(folder, (layout.mask_ending,))
    frame = layout.read(listing, layout)
    where = f"{layout.source} in {folder}"
    frame["id"] = frame["id"].map(_stem)
    check_ids(frame["id"], where)
    check_text(frame, where)
    frame["split"] = split_names(frame["split"], frame["id"], where)
    names = set(frame["id"])
    frame = _with_class(frame, layout, where)
    images = _image_files(frame.loc[frame["excluded"] == "", "id"], listing, layout, where)
    masks = _masks_by_image(listing.masks, layout, where)
    records = [
        Record(
            id=row.id,
            label=row.label,
            lesion_id=row.lesion_id,
            patient_id=row.patient_id,
            source=layout.source,
            split=row.split,
            pixels=FilePixels(Path(row.id))
            if row.excluded
            else FilePixels(images[row.id], masks.get(images[row.id].stem)),
            excluded=row.excluded,
        )
        for row in frame.itertuples()
    ]
    files = {path.stem for path in listing.images}
    ending = layout.optional_ending
    more = {stem for stem in files if not {stem, stem.removesuffix(ending), stem + ending} & names}
    if layout.note:
        LOGGER.warning("%s: %s", where, layout.note)
    if more:
        LOGGER.info("%s: %d image files are not in the table and not read", where, len(more))
    offered = [record for record in records if not record.excluded]
    with_mask = sum(record.pixels.has_mask for record in offered)
    if masks and with_mask < len(offered):
        LOGGER.info("%s: %d of %d images have a mask", where, with_mask, len(offered))
    return records


def missing_table(listing: Listing, layout: Layout, names: tuple[str, ...]) -> str:
    """The message for a table that is not there: what lies there instead, and what to do."""
    there = sorted(path.name for path in listing.tables)[:5] or ["none"]
    archives = sum(listing.others[suffix] for suffix in (".zip", ".gz", ".tar", ".rar", ".7z"))
    remedy = (
        f"unpack the {archives} archives there"
        if archives
        else "set data.folder to the folder the data set was unpacked in"
    )
    return (
        f"{listing.folder}: no {' or '.join(names)}, the table of {layout.source}; found tables: "
        f"{', '.join(there)}; {remedy}"
    )


def _stem(name: str) -> str:
    path = PurePosixPath(name)
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else name


def _with_class(frame: pd.DataFrame, layout: Layout, where: str) -> pd.DataFrame:
    """The diagnoses as codes of ISIC 2018; rows without such a class are marked in the column
    `excluded`, and counted in the log.
    """
    theirs = frame["label"].str.lower()
    codes = theirs.map(lambda word: layout.diagnoses.get(word, "" if word == "" else None))
    known = codes.notna()
    without = known & (codes == "")
    excluded = pd.Series("", index=frame.index)
    for rows, why, level in (
        (without, "their diagnosis has no class of ISIC 2018", logging.INFO),
        (~known, "their diagnosis is not known to this reader", logging.WARNING),
    ):
        excluded[rows] = why
        if rows.any():
            counts = frame.loc[rows, "label"].replace("", "(none)").value_counts()
            words = ", ".join(f"{name} {n}" for name, n in counts.items())
            LOGGER.log(
                level,
                "%s: %d of %d images left out, %s: %s",
                where, int(rows.sum()), len(frame), why, words,
            )  # fmt: skip
    if (excluded != "").all():
        raise SourceError(
            f"{where}: none of {len(frame)} rows has a diagnosis that is a class of ISIC 2018; "
            f"found {sorted(set(frame['label']))[:8]}, expected some of "
            f"{sorted(name for name, code in layout.diagnoses.items() if code)}"
        )
    return frame.assign(label=codes.fillna(""), excluded=excluded)


def _image_files(ids: pd.Series, listing: Listing, layout: Layout, where: str) -> dict[str, Path]:
    """The file of each id. Raises: `SourceError` for ids without file, or with two."""
    by_stem: dict[str, list[Path]] = {}
    for path in listing.images:
        by_stem.setdefault(path.stem, []).append(path)
    ending = layout.optional_ending
    files = {}
    for name in ids:
        candidates = [name]
        if ending:
            candidates += [name.removesuffix(ending), name + ending]
        files[name] = next((by_stem[c] for c in candidates if c in by_stem), [])
    absent = [name for name, paths in files.items() if not paths]
    if absent:
        listing.refuse_unreadable()
    refuse(
        absent,
        f"{where}: images that are not there",
        f"unpack the image archives into this folder; {len(by_stem)} image files lie there",
    )
    refuse(
        [" and ".join(map(str, paths)) for paths in files.values() if len(paths) > 1],
        f"{where}: images that are there more than once",
        "keep one copy of each",
        "images",
    )
    return {name: paths[0] for name, paths in files.items()}


def _masks_by_image(masks: list[Path], layout: Layout, where: str) -> dict[str, Path]:
    by_image = {path.stem[: -len(layout.mask_ending)]: path for path in masks}
    kept = set(by_image.values())
    refuse(
        [path for path in masks if path not in kept],
        f"{where}: masks that are there more than once",
        "keep one copy of each",
        "files",
    )
    return by_image
