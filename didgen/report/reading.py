"""Reading a run's results: what is absent gives None, what is broken gives a clear error."""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from didgen.settings.arms import SYNTHETIC_ONLY
from didgen.settings.methods import DIDGEN, METHODS
from didgen.settings.sets import OWN

if TYPE_CHECKING:
    import pandas as pd


class BrokenResult(ValueError):
    """A result file exists but cannot be read as what it should be."""


def broken(path: Path, fault: str, expected: str) -> BrokenResult:
    """The error for a file that is there but wrong: what is found, what is expected, what to do."""
    return BrokenResult(
        f"{path}: {fault}; expected {expected}. "
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
    except (ValueError, RecursionError) as error:
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
    except ValueError as error:
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
                fault = f"'{frame[name][words].iloc[0]}' in column {name}"
                raise broken(path, fault, "a number")
            continue
        kept[name] = numbers.astype(float)
    return pd.DataFrame(kept)


def shards(run_dir: Path, name: str) -> list[Path]:
    """The folders of a synthetic set, `images` or `pairs`, that went into the augmented set.

    run_dir: the folder that the set lies in, a run's or one of its methods'.

    Only those named in augment/config.json: others lie there from runs with other shards. Their
    last two components are looked up in the run, so that a run may be moved. Raises: BrokenResult.
    """
    path = run_dir / "augment" / "config.json"
    named = (json_file(path) or {}).get(name, [])
    if not isinstance(named, list) or not all(isinstance(folder, str) for folder in named):
        raise broken(path, f"{named!r} under '{name}'", "a list of folders")
    return [run_dir.joinpath(*Path(folder).parts[-2:]) for folder in named]


def synthetic_set(
    run_dir: Path, name: str, columns: Iterable[str] = ()
) -> "tuple[pd.DataFrame | None, list[str]]":
    """The rows of all shards of a synthetic set (None: no shard; maybe empty), and what is missing.

    Files are given by absolute paths; the column `metadata` names the table a row is from.
    Raises: ManifestError or BrokenResult if a shard is damaged or lacks one of `columns`.
    """
    import pandas as pd

    folders = shards(run_dir, name)
    if not folders and (run_dir / name).is_dir():
        return None, [
            f"What lies in {name}/ was not gathered into the augmented set and is not shown."
        ]
    parts, missing, n_failed = [], [], 0
    for folder in folders:
        part = _shard(folder, columns)
        if part is None:
            missing.append(f"There is no {name}/{folder.name}/metadata.csv in this run.")
        else:
            parts.append(part)
        failed = text_table(folder / "failed.csv", ("id",))
        n_failed += 0 if failed is None else len(failed)
    frame = pd.concat(parts, ignore_index=True).fillna("") if parts else None
    if n_failed:
        asked = n_failed + (0 if frame is None else len(frame))
        missing.append(f"{n_failed} of {asked} samples failed and are left out (failed.csv).")
    return frame, missing


def _shard(folder: Path, columns: Iterable[str]) -> "pd.DataFrame | None":
    from didgen.data.manifest import read_manifest, resolve

    path = folder / "metadata.csv"
    frame = text_table(path, ("id",))
    if frame is None or frame.empty:
        return frame
    text_table(path, columns)
    frame = read_manifest(path, check_files=False)
    for column in frame.columns.intersection(["image", "mask", "condition"]):
        frame[column] = [str(file or "") for file in resolve(path, frame[column])]
    return frame.assign(metadata=str(path))


def sets_of_methods(run_dir: Path) -> dict[str, Path]:
    """The folder of each method's sets, the run's own method first; without any, of that alone.

    Only of methods of which the verdict compared an arm, where verdict/config.json names its arms:
    others lie there from earlier runs. Raises: BrokenResult.
    """
    folders = {name: run_dir / "methods" / name for name in METHODS} | {DIDGEN: run_dir}
    arms = [_compared(run_dir, f"{task}_arms") for task in ("classify", "segment")]
    named = {_set_name(arm) for part in arms for arm in part or ()}
    made = {
        name: path
        for name, path in folders.items()
        if (path / "augment").is_dir() and (not named or _arm_of(name) in named)
    }
    return made or {DIDGEN: run_dir}


def lead_sets(run_dir: Path) -> Path:
    """The folder of the sets that the verdict is about: the run's own, or those of a method.

    Raises: BrokenResult.
    """
    made = sets_of_methods(run_dir)
    path = run_dir / "verdict" / "config.json"
    lead = _set_name((json_file(path) or {}).get("treatment"))
    return next((path for name, path in made.items() if _arm_of(name) == lead), [*made.values()][0])


def _set_name(arm: object) -> str:
    """The set of an arm such as `synthetic-0.5x`."""
    name = str(arm).partition("-")[0]
    return OWN if name == SYNTHETIC_ONLY else name


def _arm_of(method: str) -> str:
    return OWN if method == DIDGEN else method


@dataclass(frozen=True)
class Trial:
    """One trained model: its arm, its seed, its folder and its metrics.json (None if absent)."""

    arm: str
    seed: int
    folder: Path
    metrics: dict[str, Any] | None


def trials(run_dir: Path, task: str) -> list[Trial]:
    """The `{arm}/seed{n}` folders of `classify` or `segment`, `original` first, then by name, seed.

    Only the arms and seeds that the verdict compared, where verdict/config.json names them: others
    lie there from earlier runs. Raises: BrokenResult.
    """
    arms, seeds = _compared(run_dir, f"{task}_arms"), _compared(run_dir, "seeds")
    trained = []
    for folder in (run_dir / task).glob("*/seed*"):
        match = re.fullmatch(r"seed(\d+)", folder.name)
        if match is None or not folder.is_dir():
            continue
        if (arms is None or folder.parent.name in arms) and (
            seeds is None or int(match[1]) in seeds
        ):
            metrics = json_file(folder / "metrics.json")
            trained.append(Trial(folder.parent.name, int(match[1]), folder, metrics))
    return sorted(trained, key=lambda trial: (trial.arm != "original", trial.arm, trial.seed))


def _compared(run_dir: Path, key: str) -> list[Any] | None:
    """What the verdict compared; None: everything that is there."""
    path = run_dir / "verdict" / "config.json"
    named = (json_file(path) or {}).get(key)
    if named is not None and not isinstance(named, list):
        raise broken(path, f"{named!r} under '{key}'", "a list, or null for all")
    return named


def finite(path: Path, owner: dict[str, Any], key: str) -> float:
    """The finite number under a key. Raises: BrokenResult if it is absent or something else."""
    value = owner.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise broken(path, f"{value!r} under '{key}'", "a finite number")
    return float(value)
