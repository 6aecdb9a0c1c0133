"""Tables of metadata: read as text whatever their separator, checked, faults counted."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from didgen.data.sources.records import SourceError

# File systems take 255 bytes for a name, ending included.
LONGEST_ID = 200
SPLIT_NAMES = {
    "": "", "train": "train", "training": "train", "val": "val", "valid": "val",
    "validation": "val", "test": "test", "testing": "test",
}  # fmt: skip


def refuse(offenders: Iterable[object], what: str, remedy: str, noun: str = "rows") -> None:
    """Raise `SourceError` when there are offenders: how many, the first five, what to do."""
    # Names come from the user's files: a control character must not reach the terminal.
    names = [str(name) if str(name).isprintable() else repr(str(name)) for name in offenders]
    if names:
        shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        raise SourceError(f"{what}: {len(names)} {noun} ({shown}); {remedy}")


def read_table(path: Path) -> pd.DataFrame:
    """Every cell as text without blanks around it, "" where absent; comma, tab or semicolon.

    Lines without any text are no rows. The index holds the number of each row's line in the file.
    Raises: `SourceError` when the file is missing, is not UTF-8 text, is empty, is no table, names
    two columns alike, has rows of more cells than names, or a quote that is not closed where its
    cell ends: all rows up to the next quote would be lost in that cell.
    """
    if not path.is_file():
        raise SourceError(f"{path}: no such table; correct the path")
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            head = stream.readline()
            stream.seek(0)
            reader = csv.reader(stream, delimiter=max(",\t;", key=head.count), strict=True)
            lines = [(reader.line_num, list(map(str.strip, row))) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        where, remedy = str(path), ""
        if isinstance(error, csv.Error):
            where = f"{path}, line {reader.line_num}"
            remedy = "; a cell that begins with a quote must end with one"
        raise SourceError(
            f"{where}: cannot be read as a table ({error}); expected a CSV in UTF-8 with a line of "
            f"column names{remedy}"
        ) from error
    lines = [(number, row) for number, row in lines if row not in ([], [""])]
    if not lines:
        raise SourceError(f"{path}: is empty; expected a line of column names and one row an image")
    names, rows = lines[0][1], lines[1:]
    refuse(
        [f"line {number}" for number, row in rows if any(row[len(names) :])],
        f"{path}: rows of more cells than the {len(names)} column names",
        "name every column, and put quotes around text that holds a separator",
    )
    refuse(
        sorted({name for name in names if name and names.count(name) > 1}),
        f"{path}: column names that occur more than once",
        "rename or remove all but one of each",
        "names",
    )
    if not rows:
        raise SourceError(f"{path}: no rows under the column names; expected one row an image")
    width = len(names)
    cells = [(row + [""] * width)[:width] for _, row in rows]
    frame = pd.DataFrame(cells, columns=names, index=[number for number, _ in rows], dtype=str)
    return frame.loc[:, [name != "" for name in names]]


def pick_columns(
    frame: pd.DataFrame,
    columns: Mapping[str, Sequence[str]],
    needed: Sequence[str],
    where: object,
) -> pd.DataFrame:
    """The columns under our names: of the alternatives the first that is there, else empty.

    Raises: `SourceError` when a needed column has none of its names in the table.
    """
    theirs = {
        ours: next((name for name in names if name in frame), None)
        for ours, names in columns.items()
    }
    absent = [" or ".join(columns[ours]) for ours in needed if theirs[ours] is None]
    if absent:
        raise SourceError(
            f"{where}: missing columns {absent}; found {list(frame.columns)}; expected the table "
            "as it was published"
        )
    return pd.DataFrame(
        {ours: frame[name] if name else "" for ours, name in theirs.items()}, index=frame.index
    )


def one_hot(frame: pd.DataFrame, codes: Sequence[str], where: object) -> pd.Series:
    """The one of `codes` whose column holds 1 in each row.

    Raises: `SourceError`, with counts, for a missing column, a cell other than 0 and 1, or a row
    that has not exactly one 1. Rows are named by the frame's first column.
    """
    absent = [code for code in codes if code not in frame]
    if absent:
        raise SourceError(
            f"{where}: missing columns {absent}; found {list(frame.columns)}, expected "
            f"{list(codes)}; fetch the official file again"
        )
    cells = frame[list(codes)].apply(pd.to_numeric, errors="coerce")
    names = frame.iloc[:, 0]
    refuse(
        names[~cells.isin([0.0, 1.0]).all(axis=1)],
        f"{where}: cells other than 0.0 and 1.0",
        "fetch the official file again",
    )
    refuse(
        names[cells.sum(axis=1) != 1],
        f"{where}: rows without exactly one diagnosis of {', '.join(codes)}",
        "fetch the official file again",
    )
    return cells.idxmax(axis=1)


def check_text(frame: pd.DataFrame, where: object) -> None:
    """Raise `SourceError`, with counts, for cells with control characters; column id is needed.

    Line breaks and NUL most often come from a quote in the wrong place, and do not survive CSV.
    """
    for column in frame.columns.drop("id"):
        refuse(
            frame.loc[frame[column].str.contains(r"[\x00-\x1f\x7f]"), "id"],
            f"{where}: line breaks or other control characters in {column}",
            "correct these cells",
        )


def check_ids(ids: pd.Series, where: object) -> None:
    """Raise `SourceError`, with counts, for ids that are empty, repeat or cannot be file names.

    The index holds the number of each id's line.
    """
    long = ids[ids.str.len() > LONGEST_ID]
    remedy = "shorten them: ids become file names"
    refuse(long.str[:20] + "...", f"{where}: ids of more than {LONGEST_ID} characters", remedy)
    refuse(
        [f"line {line}" for line in ids.index[ids == ""]],
        f"{where}: empty id",
        "give every image an id",
    )
    refuse(
        ids[ids.str.contains(r"[^A-Za-z0-9_.-]")],
        f"{where}: ids with other characters than letters, digits, '_', '-' and '.'",
        "rename them: ids become file names",
    )
    refuse(
        ids[ids.str.startswith((".", "-"))],
        f"{where}: ids that start with '.' or '-'",
        "rename them: ids become file names",
    )
    refuse(
        ids[ids.duplicated(keep=False)], f"{where}: duplicate ids", "give every image its own id"
    )
    folded = ids.str.lower()
    refuse(
        ids[folded.duplicated(keep=False)],
        f"{where}: ids that differ only in upper and lower case",
        "rename them: some file systems hold both for the same name",
    )


def split_names(splits: pd.Series, ids: pd.Series, where: object) -> pd.Series:
    """train, val, test or "" for the words that tables use. Raises: `SourceError` with counts."""
    lower = splits.str.lower()
    refuse(
        ids[~lower.isin(SPLIT_NAMES)],
        f"{where}: unknown splits {sorted(set(splits[~lower.isin(SPLIT_NAMES)]))[:5]}",
        "use train, val and test, or leave the cell empty",
    )
    return lower.map(SPLIT_NAMES)
