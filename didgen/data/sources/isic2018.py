"""ISIC 2018 Task 1 (masks) and Task 3 (diagnoses), read from the challenge's own archives.

Codella et al. 2019 (arXiv 1902.03368); Tschandl et al. 2018 (HAM10000). Licences as the challenge
site states them: Task 1 CC-0, Task 3 CC BY-NC 4.0.
"""

import csv
import io
import logging
from pathlib import Path, PurePosixPath

import pandas as pd

from didgen.data.archives import ArchiveError, members
from didgen.data.classes import CLASSES
from didgen.data.sources.catalog import (
    BUCKETS,
    LESION_GROUPS,
    PHASES,
    TASK1_SOURCE,
    TASK3_SOURCE,
)
from didgen.data.sources.records import Record, SourceError, ZipPixels, read_member
from didgen.data.sources.tables import check_ids, refuse

LOGGER = logging.getLogger(__name__)


def isic2018_records(folder: Path | str, official: bool) -> list[Record]:
    """Records of both tasks from a folder of the official archives, under their official names.

    With `official`, the challenge's training, validation and test archives are all required and
    give the splits; without it only the training archives are read, and the split is left open.
    Raises: `SourceError` for a missing or damaged archive, or a ground truth or lesion groups that
    do not fit.
    """
    folder = Path(folder)
    records = []
    for split in PHASES if official else ("train",):
        phase = PHASES[split]
        chosen = split if official else ""
        records += _task1(folder, phase, chosen)
        records += _task3(folder, phase, chosen)
    check_ids(pd.Series([record.id for record in records]), folder)
    return records


def _task1(folder: Path, phase: str, split: str) -> list[Record]:
    images = _members(folder / f"ISIC2018_Task1-2_{phase}_Input.zip", ".jpg")
    masks = _members(folder / f"ISIC2018_Task1_{phase}_GroundTruth.zip", ".png")
    masks = {name.removesuffix("_segmentation"): place for name, place in masks.items()}
    _same_names(set(images), set(masks), f"Task 1 {phase}")
    return [
        Record(name, "", "", "", TASK1_SOURCE, split, ZipPixels(images[name], masks[name]))
        for name in sorted(images)
    ]


def _task3(folder: Path, phase: str, split: str) -> list[Record]:
    images = _members(folder / f"ISIC2018_Task3_{phase}_Input.zip", ".jpg")
    truth = folder / f"ISIC2018_Task3_{phase}_GroundTruth.zip"
    tables = list(_members(truth, ".csv").values())
    if len(tables) > 1:
        raise SourceError(
            f"{truth}: found {len(tables)} tables ({', '.join(name for _, name in tables)}), "
            "expected one; fetch the official archive again"
        )
    ((archive, member),) = tables
    where = f"{archive.name}/{member}"
    rows = _rows(read_member(archive, member), ("image", *CLASSES), where)
    _refuse_repeats([row["image"] or "" for row in rows], where)
    labels = {row["image"] or "": _label(row, where) for row in rows}
    _same_names(set(images), set(labels), f"Task 3 {phase}")
    lesions = _lesion_groups(folder, set(images)) if phase == "Training" else {}
    return [
        Record(
            name,
            labels[name],
            lesions.get(name, ""),
            "",
            TASK3_SOURCE,
            split,
            ZipPixels(images[name]),
        )
        for name in sorted(images)
    ]


def _rows(content: bytes, columns: tuple[str, ...], where: str) -> list[dict[str, str | None]]:
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{where}: not a CSV in UTF-8 ({error}); fetch it again") from error
    absent = [column for column in columns if column not in (reader.fieldnames or ())]
    if absent:
        raise SourceError(
            f"{where}: missing columns {absent}; found {list(reader.fieldnames or ())}, expected "
            f"{list(columns)}; fetch the official file again"
        )
    return rows


def _label(row: dict[str, str | None], where: str) -> str:
    chosen = [code for code in CLASSES if _cell(row, code, where) == 1.0]
    if len(chosen) != 1:
        raise SourceError(
            f"{where}: {row['image']} has {len(chosen)} diagnoses, expected exactly one of "
            f"{', '.join(CLASSES)}"
        )
    return chosen[0]


def _cell(row: dict[str, str | None], column: str, where: str) -> float:
    try:
        value = float(row[column] or "")
    except ValueError:
        value = float("nan")
    if value not in (0.0, 1.0):
        raise SourceError(
            f"{where}: column {column} of {row['image']}: found {row[column]!r}, expected 0.0 or "
            "1.0; fetch the official file again"
        )
    return value


def _lesion_groups(folder: Path, images: set[str]) -> dict[str, str]:
    """The lesion of each image. One that no row names has none, and is counted in the log.

    Raises: `SourceError` when rows give one image different lesions, with counts.
    """
    path = _present(folder / LESION_GROUPS)
    rows = _rows(path.read_bytes(), ("image", "lesion_id"), path.name)
    lesions: dict[str, str] = {}
    torn = set()
    for row in rows:
        image, lesion = (row["image"] or "").strip(), (row["lesion_id"] or "").strip()
        if lesion and lesions.setdefault(image, lesion) != lesion:
            torn.add(image)
    refuse(
        sorted(torn),
        f"{path.name}: rows that give one image different lesions",
        "fetch the official file again",
        "images",
    )
    alone = sorted(images - set(lesions))
    if alone:
        LOGGER.warning(
            "%s: %d of %d images have no lesion there (%s%s): each counts as a lesion of its own, "
            "and only its looks can relate it to others",
            path.name, len(alone), len(images), ", ".join(alone[:5]), ", ..." * (len(alone) > 5),
        )  # fmt: skip
    return lesions


def _refuse_repeats(names: list[str], where: str) -> None:
    seen, repeated = set(), set()
    for name in names:
        (repeated if name in seen else seen).add(name)
    remedy = "fetch the official archive again"
    refuse(sorted(repeated), f"{where}: images with several rows", remedy, "images")


def _present(path: Path) -> Path:
    if not path.is_file():
        raise SourceError(
            f"{path}: no such file; download {BUCKETS[0]}/{path.name} into {path.parent}, or set "
            "data.mirror to the folder that holds the ISIC 2018 archives"
        )
    return path


def _members(path: Path, suffix: str) -> dict[str, tuple[Path, str]]:
    try:
        names = members(_present(path), suffix)
    except ArchiveError as error:
        raise SourceError(str(error)) from error
    if not names:
        raise SourceError(f"{path}: holds no {suffix} file; fetch the official archive again")
    by_stem = {PurePosixPath(name).stem: (path, name) for name in names}
    if len(by_stem) < len(names):
        raise SourceError(
            f"{path}: {len(names)} {suffix} files have only {len(by_stem)} different names, "
            "expected one file per name; fetch the official archive again"
        )
    return by_stem


def _same_names(images: set[str], truths: set[str], what: str) -> None:
    if images != truths:
        lone = sorted(images ^ truths)
        raise SourceError(
            f"{what}: {len(images - truths)} images without ground truth and "
            f"{len(truths - images)} ground truths without image ({', '.join(lone[:5])}, ...); "
            "fetch the two archives again"
        )
