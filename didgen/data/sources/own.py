"""The user's own images: listed in a CSV table, or sorted into a folder for each diagnosis."""

import logging
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from didgen.data.classes import CLASSES
from didgen.data.sources.listing import MASK_ENDINGS, list_files
from didgen.data.sources.records import FilePixels, Record, SourceError
from didgen.data.sources.tables import (
    SPLIT_NAMES,
    check_ids,
    check_text,
    read_table,
    refuse,
    split_names,
)

LOGGER = logging.getLogger(__name__)
OPTIONAL = ("mask", "label", "lesion_id", "patient_id", "split")
FIELDS = ("id", "image", *OPTIONAL)


def own_records(
    table: Path | str,
    columns: Mapping[str, str] | None = None,
    labels: Mapping[str, str | None] | None = None,
) -> list[Record]:
    """Records of a CSV with columns id, image and, optional, mask, label, lesion_id, patient_id,
    split.

    columns: ours to the table's, for those that are called otherwise; one of theirs may serve
    twice. labels: the table's words to a code of ISIC 2018, or to None for those without a class:
    such an image is kept for its mask, or marked as excluded, counted in the log. File names are
    relative to the table's folder.
    Raises: `SourceError`, with counts, when the table is missing, lacks a column, repeats an id,
    names unknown labels, unknown splits or files that are not there, uses a mask for two images,
    gives a lesion to two patients, or a row neither a label nor a mask.
    """
    table = Path(table)
    if not table.is_file():
        raise SourceError(f"{table}: no such table; set data.table to a CSV of your images")
    frame = _fields(read_table(table), columns or {}, table)
    check_ids(frame["id"], table)
    check_text(frame, table)
    frame["split"] = split_names(frame["split"], frame["id"], table)
    _check_lesions(frame, table)
    frame = _classes(frame, labels or {}, str(table))
    _check_files(frame[frame["excluded"] == ""], table)
    return [
        Record(
            id=row.id,
            label=row.label,
            lesion_id=row.lesion_id,
            patient_id=row.patient_id,
            source=table.stem,
            split=row.split,
            pixels=FilePixels(
                table.parent / row.image, table.parent / row.mask if row.mask else None
            ),
            excluded=row.excluded,
        )
        for row in frame.itertuples()
    ]


def folder_records(
    folder: Path | str, labels: Mapping[str, str | None] | None = None
) -> list[Record]:
    """Records of `folder/CLASS/*.jpg` or `folder/{train,val,test}/CLASS/*.jpg`; a file's name
    without extension is its id.

    A mask lies beside its image as `NAME_segmentation.png` or `NAME_mask.png`. Images outside any
    class folder have no label and need a mask. labels: the folders' names to a code of ISIC 2018,
    as in `own_records`. Hidden files are ignored; files of other kinds are counted in the log.
    Raises: `SourceError`, with counts, for folders that are no class, names that repeat or cannot
    be ids, DICOM and HEIC files, two masks of one image, masks without image, and images with
    neither label nor mask.
    """
    folder = Path(folder)
    listing = list_files(folder)
    listing.refuse_unreadable()
    if not listing.images:
        raise SourceError(
            f"{folder}: no images; expected {folder.name}/CLASS/*.jpg or *.png, with CLASS one of "
            f"{', '.join(CLASSES)}; found {len(listing.masks)} masks and "
            f"{sum(listing.others.values()) + len(listing.tables)} other files"
        )
    if listing.tables:
        LOGGER.info(
            "%s: %d tables or files without extension left aside (%s): here folders name the "
            "classes; a table is read by data.source: table",
            folder, len(listing.tables),
            ", ".join(str(path.relative_to(folder)) for path in listing.tables[:3])
            + ", ..." * (len(listing.tables) > 3),
        )  # fmt: skip
    masks = _beside(listing.images, listing.masks, folder)
    rows = []
    for path in listing.images:
        split, label = _place(path.relative_to(folder).parts[:-1])
        rows.append((path.stem, path, masks.get(path.parent / path.stem), label, split))
    frame = pd.DataFrame(rows, columns=["id", "image", "mask", "label", "split"])
    repeated = frame[frame["id"].duplicated(keep=False)]
    refuse(
        [path.relative_to(folder) for path in repeated["image"]],
        f"{folder}: the same name in different folders or with different extensions",
        "give every image a name of its own",
        "images",
    )
    check_ids(frame["id"], folder)
    frame = _classes(frame, labels or {}, str(folder))
    return [
        Record(
            *(row.id, row.label, "", "", folder.name, row.split),
            pixels=FilePixels(row.image, row.mask),
            excluded=row.excluded,
        )
        for row in frame.itertuples()
    ]


def _fields(frame: pd.DataFrame, columns: Mapping[str, str], table: Path) -> pd.DataFrame:
    """The table's columns under our names, empty where an optional one is absent."""
    strange = [ours for ours in columns if ours not in FIELDS]
    if strange:
        raise SourceError(
            f"data.columns: unknown fields {strange}; expected some of {', '.join(FIELDS)}, each "
            "followed by the table's name for it, as in `image: file_name`"
        )
    theirs = {ours: columns.get(ours, ours) for ours in FIELDS}
    absent = [name for ours, name in theirs.items() if name not in frame]
    absent = [name for name in absent if name in columns.values() or name in ("id", "image")]
    if absent:
        raise SourceError(
            f"{table}: missing columns {absent}; found {list(frame.columns)}; expected id and "
            f"image, and optionally {', '.join(OPTIONAL)}; name yours in data.columns"
        )
    return pd.DataFrame(
        {ours: frame.get(name, "") for ours, name in theirs.items()},
        index=frame.index,
    )


def _classes(frame: pd.DataFrame, labels: Mapping[str, str | None], where: str) -> pd.DataFrame:
    """Map labels to codes; what has neither class nor mask but was mapped to None is marked in the
    column `excluded`, counted. Codes and mapped words are the same in upper and lower case.
    """
    wrong = {theirs: ours for theirs, ours in labels.items() if ours and ours not in CLASSES}
    if wrong:
        raise SourceError(
            f"data.labels: {wrong} name no class; expected one of {', '.join(CLASSES)}, or null "
            "for words without class"
        )
    known = {"": "", **{code.lower(): code for code in CLASSES}}
    known |= {str(theirs).lower(): ours or "" for theirs, ours in labels.items()}
    words = frame["label"].str.lower()
    strange = frame[~words.isin(known)]
    refuse(
        strange["id"],
        f"{where}: unknown labels",
        f"use one of {', '.join(CLASSES)}, or map yours in data.labels; found "
        f"{_counts(strange['label'])}",
    )
    # A missing mask is "" in a table and None in a folder.
    bare = (words.map(known) == "") & ~frame["mask"].fillna("").astype(bool)
    dropped = bare & (words != "")
    refuse(
        frame.loc[bare & ~dropped, "id"],
        f"{where}: neither label nor mask",
        "give each image a label, a mask, or both",
    )
    if dropped.any():
        LOGGER.info(
            "%s: %d of %d images left out, data.labels gives them no class: %s",
            where, int(dropped.sum()), len(frame), _counts(frame.loc[dropped, "label"]),
        )  # fmt: skip
    if dropped.all():
        raise SourceError(f"{where}: data.labels leaves no image of {len(frame)}; map some words")
    why = dropped.map({True: "data.labels gives them no class", False: ""})
    return frame.assign(label=words.map(known), excluded=why)


def _counts(words: pd.Series) -> str:
    counts = Counter(word if word.isprintable() else repr(word) for word in words)
    return ", ".join(f"{word} {n}" for word, n in counts.most_common(8))


def _check_lesions(frame: pd.DataFrame, table: Path) -> None:
    """Refuse lesions that several patients have: counted anew for each, they would join them."""
    known = frame[(frame["lesion_id"] != "") & (frame["patient_id"] != "")]
    patients = known.groupby("lesion_id")["patient_id"].nunique()
    refuse(
        patients[patients > 1].index,
        f"{table}: lesion_id of more than one patient",
        "give each lesion an id that no other patient's has, such as PATIENT_LESION",
        "lesions",
    )


def _check_files(frame: pd.DataFrame, table: Path) -> None:
    for column in ("image", "mask"):
        # No error for a path that is too long or not allowed: such a file is not there either.
        there = frame[column].map(lambda name: not name or os.path.isfile(table.parent / name))
        missing = frame.loc[~there, "id"]
        empty = frame.loc[frame["image"] == "", "id"]
        remedy = f"correct the {column} column; names are relative to {table.parent}"
        refuse(missing, f"{table}: {column} files that are not there, or no regular files", remedy)
        refuse(empty, f"{table}: empty image", "name the file of every image")
        named = frame.loc[frame[column] != "", ["id", column]]
        twice = named.loc[named[column].map(os.path.normpath).duplicated(keep=False), "id"]
        refuse(twice, f"{table}: the same {column} file in several rows", "give each row its own")


def _place(folders: tuple[str, ...]) -> tuple[str, str]:
    """Split and class that the folders above an image say; the class is the innermost folder."""
    split = SPLIT_NAMES.get(folders[0].lower(), "") if folders else ""
    inner = folders[1:] if split else folders
    return split, inner[-1] if inner else ""


def _beside(images: list[Path], masks: list[Path], folder: Path) -> dict[Path, Path]:
    """The mask of each image, by the image's path without extension."""
    masks_of: dict[Path, list[Path]] = {}
    for path in masks:
        ending = next(e for e in MASK_ENDINGS if path.stem.lower().endswith(e))
        masks_of.setdefault(path.parent / path.stem[: -len(ending)], []).append(path)
    refuse(
        [
            " and ".join(path.name for path in paths)
            for paths in masks_of.values()
            if len(paths) > 1
        ],
        f"{folder}: more than one mask for an image",
        "keep one of *_segmentation and *_mask",
        "images",
    )
    owners = {path.parent / path.stem for path in images}
    refuse(
        [path.relative_to(folder) for stem, (path, *_) in masks_of.items() if stem not in owners],
        f"{folder}: masks without an image beside them",
        "put each beside its image, under the image's name",
        "masks",
    )
    return {stem: paths[0] for stem, paths in masks_of.items()}
