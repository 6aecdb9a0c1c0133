"""Reading a run's results: what is absent gives None, what is broken gives a clear error."""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


class BrokenResult(ValueError):
    """A result file exists but cannot be read as what it should be."""


def broken(path: Path, found: str, expected: str) -> BrokenResult:
    """The error for a file that is there but wrong: what is found, what is expected, what to do."""
    return BrokenResult(
        f"{path}: {found}; expected {expected}. "
        "Delete the file and run the stage that writes it again, then the report"
    )


def json_file(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file, or None where there is no such file.

    Raises: BrokenResult if the file is not JSON, not an object, or holds NaN or infinity.
    """
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (UnicodeDecodeError, ValueError) as error:
        raise broken(path, f"not readable as JSON ({error})", "a JSON object") from error
    if not isinstance(value, dict):
        raise broken(path, f"a JSON {type(value).__name__}", "a JSON object")
    return value


def _refuse(name: str) -> float:
    raise ValueError(f"the number {name}, which JSON does not have")


def text_table(path: Path, columns: Iterable[str]) -> "pd.DataFrame | None":
    """A CSV file as a table of strings, absent values as "", or None where there is no such file.

    Raises: BrokenResult if the file is not CSV or lacks one of `columns`.
    """
    import pandas as pd

    if not path.is_file():
        return None
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise broken(path, f"not readable as CSV ({error})", "a CSV table") from error
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise broken(
            path,
            f"columns {', '.join(frame.columns) or '(none)'}",
            f"also {', '.join(missing)}",
        )
    return frame


def number_table(path: Path, columns: Iterable[str]) -> "pd.DataFrame | None":
    """A CSV file as a table of numbers (an empty cell is NaN), or None where there is no file.

    Columns that hold words are left out. Raises: BrokenResult as `text_table`, or if one of
    `columns` holds something else than numbers.
    """
    import pandas as pd

    columns = list(columns)
    frame = text_table(path, columns)
    if frame is None:
        return None
    kept = {}
    for name in frame.columns:
        cells = frame[name].str.strip().replace("", "nan")
        numbers = pd.to_numeric(cells, errors="coerce")
        words = numbers.isna() & (cells.str.lower() != "nan")
        if words.any():
            if name in columns:
                found = f"'{frame[name][words].iloc[0]}' in column {name}"
                raise broken(path, found, "a number")
            continue
        kept[name] = numbers.astype(float)
    return pd.DataFrame(kept)


def synthetic_set(folder: Path) -> "tuple[pd.DataFrame | None, list[str]]":
    """The rows of a synthetic set's metadata.csv (None: absent; maybe empty), and what failed.

    Raises: ManifestError or BrokenResult if the set is there but damaged.
    """
    from didgen.data.manifest import read_manifest

    path = folder / "metadata.csv"
    frame = text_table(path, ("id",))
    if frame is not None and len(frame):
        frame = read_manifest(path, check_files=False)
    failed = text_table(folder / "failed.csv", ("id",))
    told = []
    if failed is not None and len(failed):
        asked = len(failed) + (0 if frame is None else len(frame))
        told = [f"{len(failed)} of {asked} samples failed and are left out (failed.csv)."]
    return frame, told


@dataclass(frozen=True)
class Trial:
    """One trained model: its arm, its seed, its folder and its metrics.json (None if absent)."""

    arm: str
    seed: int
    folder: Path
    metrics: dict[str, Any] | None


def trials(task_dir: Path) -> list[Trial]:
    """Every `{arm}/seed{n}` folder of a task, the original arm first, then by name and seed."""
    found = []
    for folder in task_dir.glob("*/seed*"):
        match = re.fullmatch(r"seed(\d+)", folder.name)
        if match and folder.is_dir():
            metrics = json_file(folder / "metrics.json")
            found.append(Trial(folder.parent.name, int(match[1]), folder, metrics))
    return sorted(found, key=lambda trial: (trial.arm != "original", trial.arm, trial.seed))


def finite(path: Path, owner: dict[str, Any], key: str) -> float:
    """The finite number under a key. Raises: BrokenResult if it is absent or something else."""
    value = owner.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise broken(path, f"{value!r} under '{key}'", "a finite number")
    return float(value)
