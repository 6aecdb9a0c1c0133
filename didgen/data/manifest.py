"""The manifest: a checked table with one row an image, CSV on disk, pandas in memory."""

import os
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from didgen.data.classes import CLASSES
from didgen.data.sources.records import SourceError
from didgen.data.sources.tables import LONGEST_ID, read_table
from didgen.runtime.files import write_csv

COLUMNS = (
    "id", "image", "mask", "label", "split", "lesion_id", "patient_id", "source",
    "width", "height", "sha256",
)  # fmt: skip
SYNTHETIC_COLUMNS = ("method", "seed", "caption", "parent_ids", "checkpoint")
SPLITS = ("train", "val", "test")
# Columns of which no value may stand in two splits, and what messages call the values.
GROUPS = {
    "lesion_id": "lesions",
    "patient_id": "patients",
    "cluster": "clusters of duplicates",
}
_INTEGERS = ("width", "height", "seed")


class ManifestError(ValueError):
    """A manifest that breaks a rule; the message names the rule, the rows and the remedy."""


def read_manifest(path: Path | str, check_files: bool = True) -> pd.DataFrame:
    """Read and check a manifest. Absent text is "", never NaN; `width`, `height` are integers.

    Raises: `ManifestError` when the file is missing or no CSV, or a rule of `check_manifest` is
    broken, or, with `check_files`, when a named file does not exist.
    """
    path = Path(path)
    if not path.is_file():
        raise ManifestError(f"{path}: no such manifest; run the stage that writes it first")
    try:
        frame = read_table(path).reset_index(drop=True)
    except SourceError as error:
        raise ManifestError(str(error)) from error
    # An image folder of `datasets` names its files so, and keeps "image" for the pixels.
    frame = frame.rename(columns={} if "image" in frame else {"file_name": "image"})
    for column in _INTEGERS:
        if column in frame:
            frame[column] = _integers(frame, column, path)
    check_manifest(frame, str(path))
    if check_files:
        names = [n for c in ("image", "mask") for n in frame[c] if n]
        missing = [name for name in names if not os.path.isfile(path.parent / name)]
        _refuse(missing, f"{path}: missing files", "restore them or run the preparation again")
    return frame


def write_manifest(frame: pd.DataFrame, path: Path | str) -> None:
    """Check a manifest and write it atomically, its fixed columns first."""
    check_manifest(frame, str(path))
    rest = [column for column in frame.columns if column not in COLUMNS]
    write_csv(path, frame[[*COLUMNS, *rest]])


def resolve(path: Path | str, names: Iterable[str]) -> list[Path | None]:
    """Absolute paths of a manifest's relative file names; None for an empty name."""
    root = Path(path).resolve().parent
    return [root / name if name else None for name in names]


def check_manifest(frame: pd.DataFrame, where: str) -> None:
    """Check columns, ids, labels, splits, paths and sizes. Raises: `ManifestError`."""
    absent = [column for column in COLUMNS if column not in frame.columns]
    if absent:
        raise ManifestError(f"{where}: missing columns {absent}; expected {list(COLUMNS)}")
    if frame.empty:
        raise ManifestError(f"{where}: no rows; expected at least one image")
    strange = sorted(set(frame["label"]) - set(CLASSES) - {""})
    _refuse(strange, f"{where}: unknown labels", f"use one of {', '.join(CLASSES)}")
    bare = frame.loc[(frame["label"] == "") & (frame["mask"] == ""), "id"].tolist()
    _refuse(bare, f"{where}: rows with neither label nor mask", "add one of the two")
    outside = [
        name
        for column in ("image", "mask", "condition")
        if column in frame
        for name in frame[column]
        if name and (Path(name).is_absolute() or ".." in Path(name).parts)
    ]
    _refuse(outside, f"{where}: paths that leave the folder", "use paths relative to the manifest")
    _refuse(frame.loc[frame["image"] == "", "id"].tolist(), f"{where}: rows without image", "fix")
    check_identities(frame, where)
    for column in ("image", "mask"):
        # Some file systems hold names that differ only by case for one.
        names = frame[column].map(lambda name: name and os.path.normpath(name).lower())
        shared = frame.loc[(names != "") & names.duplicated(keep=False), "id"].tolist()
        _refuse(shared, f"{where}: rows that share one {column} file", "keep one of them")
    # Of a set's rows, as text.
    sizes = frame[["width", "height"]].apply(pd.to_numeric, errors="coerce")
    none = frame.loc[(sizes < 1).any(axis=1), "id"].tolist()
    _refuse(none, f"{where}: rows whose width or height is less than 1 px", "correct them")
    both = frame.loc[(frame["mask"] != "") & (frame["mask"] == frame["image"]), "id"].tolist()
    _refuse(both, f"{where}: rows whose mask is their image", "name the mask's own file")
    check_groups(frame, where)


def check_identities(frame: pd.DataFrame, where: str) -> None:
    """Check ids and the names of splits. Needs columns id, split. Raises: `ManifestError`."""
    unfit = [
        ascii(name)[:LONGEST_ID]
        for name in frame["id"]
        if "/" in name or name in ("", ".", "..") or not name.isprintable()
        or len(name) > LONGEST_ID
    ]  # fmt: skip
    _refuse(unfit, f"{where}: ids that are no file names", "rename them: files are named after ids")
    duplicated = frame.loc[frame["id"].duplicated(), "id"].tolist()
    _refuse(duplicated, f"{where}: duplicate ids", "give every image an id of its own")
    alike = frame.loc[frame["id"].str.lower().duplicated(keep=False), "id"].tolist()
    _refuse(
        alike,
        f"{where}: ids that differ only in upper and lower case",
        "rename them: some file systems hold both for the same name",
    )
    strange = sorted(set(frame["split"]) - set(SPLITS))
    _refuse(strange, f"{where}: unknown splits", f"use one of {', '.join(SPLITS)}")


def check_groups(frame: pd.DataFrame, where: str) -> None:
    """Check that no lesion, no patient and no cluster of duplicates stands in two splits.

    Clusters are those of the column `cluster`, where there is one. Raises: `ManifestError`.
    """
    for column, noun in GROUPS.items():
        if column not in frame:
            continue
        known = frame[frame[column] != ""]
        splits = known.groupby(column)["split"].nunique()
        crossing = splits[splits > 1].index.tolist()
        _refuse(crossing, f"{where}: {noun} in more than one split", "keep each in a single split")


def _integers(frame: pd.DataFrame, column: str, where: Path) -> pd.Series:
    numbers = pd.to_numeric(frame[column], errors="coerce")
    fit = (numbers % 1 == 0) & (numbers < 2**63) & (numbers > -(2**63))
    bad = frame.loc[~fit].get("id", frame.loc[~fit, column]).tolist()
    _refuse(bad, f"{where}: rows whose {column} is not a whole number", "correct them")
    return numbers.astype("int64")


def _refuse(offenders: list, what: str, remedy: str) -> None:
    if offenders:
        shown = ", ".join(map(str, offenders[:5])) + (", ..." if len(offenders) > 5 else "")
        raise ManifestError(f"{what}: {len(offenders)} ({shown}); {remedy}")
