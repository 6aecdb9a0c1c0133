"""The user's own images, listed in a CSV table."""

from pathlib import Path

import pandas as pd

from didgen.data.classes import CLASSES
from didgen.data.sources.records import FilePixels, Record, SourceError

OPTIONAL = ("mask", "label", "lesion_id", "patient_id", "split")


def own_records(table: Path | str) -> list[Record]:
    """Records of a CSV with columns id, image and, optional, mask, label, lesion_id, patient_id,
    split.

    File names are relative to the table's folder. Raises: `SourceError` when the table is missing,
    lacks a column, repeats an id, names unknown labels or files that are not there, or gives a row
    neither a label nor a mask.
    """
    table = Path(table)
    if not table.is_file():
        raise SourceError(f"{table}: no such table; set data.table to a CSV of your images")
    frame = pd.read_csv(table, dtype=str, keep_default_na=False)
    absent = [column for column in ("id", "image") if column not in frame]
    if absent:
        raise SourceError(
            f"{table}: missing columns {absent}; found {list(frame.columns)}; expected id and "
            f"image, and optionally {', '.join(OPTIONAL)}"
        )
    for column in OPTIONAL:
        if column not in frame:
            frame[column] = ""
    _check(frame, table)
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
        )
        for row in frame.itertuples()
    ]


def _check(frame: pd.DataFrame, table: Path) -> None:
    def refuse(rows: pd.Series, what: str, remedy: str) -> None:
        offenders = frame.loc[rows, "id"].tolist()
        if offenders:
            shown = ", ".join(offenders[:5]) + (", ..." if len(offenders) > 5 else "")
            raise SourceError(f"{table}: {what}: {len(offenders)} rows ({shown}); {remedy}")

    refuse(frame["id"] == "", "empty id", "give every image an id")
    refuse(frame["id"].str.contains(r"[^\w.-]"), "ids with other characters than letters, digits, "
           "'_', '-' and '.'", "rename them: ids become file names")  # fmt: skip
    refuse(frame["id"].duplicated(keep=False), "duplicate ids", "give every image its own id")
    refuse(
        ~frame["label"].isin([*CLASSES, ""]), "unknown labels", f"use one of {', '.join(CLASSES)}"
    )
    refuse(
        (frame["label"] == "") & (frame["mask"] == ""),
        "neither label nor mask",
        "give each row a label, a mask, or both",
    )
    for column in ("image", "mask"):
        there = frame[column].map(lambda name: not name or (table.parent / name).is_file())
        refuse(~there, f"{column} files that are not there", f"correct the {column} column")
