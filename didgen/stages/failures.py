"""Why a set has no sample left: how many failed or were rejected, and where they are listed."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from didgen.runtime.files import read_csv


def all_failed(kind: str, folders: Sequence[Path]) -> str:
    """Why a set has no sample, from what `failed.csv` lists in its folders: counts by reason."""
    tables = [folder / "failed.csv" for folder in folders if (folder / "failed.csv").is_file()]
    failures = [read_csv(path, kind, ("id", "failure")) for path in tables]
    reasons = [text.partition(":")[0] for table in failures for text in table["failure"]]
    if not reasons:
        return f"there are no {kind} in {', '.join(map(str, folders))}; run the {kind} stage again"
    counts = ", ".join(f"{reason} {n}" for reason, n in Counter(reasons).most_common())
    return (
        f"all {len(reasons)} {kind} failed ({counts}); they are listed in "
        f"{', '.join(map(str, tables))}. Fine-tune the model for longer, or change the section "
        f"{kind}"
    )


def all_rejected(scores: Path | None) -> str:
    """Why no pair is kept, from `scores.csv`, with counts; "" where one is, or none was made."""
    if scores is None:
        return ""
    table = read_csv(scores, "filter", ("kept", "reasons"))
    if table.empty or (table["kept"] == "yes").any():
        return ""
    counts = Counter(reason for cell in table["reasons"] for reason in cell.split("; "))
    return (
        f"all {len(table)} pairs were rejected (by "
        f"{', '.join(f'{reason} {n}' for reason, n in counts.most_common())}); see rejected.png "
        f"and rejected.csv in {scores.parent}, then lower the thresholds of the filter section, or "
        "set them to null to keep everything"
    )
