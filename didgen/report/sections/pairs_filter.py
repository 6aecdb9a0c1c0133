"""The part of the pairs section that says what the filter kept, what it rejected and why."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from didgen.report.figures import Line, line_chart
from didgen.report.page import Options
from didgen.report.pictures import embed, mask_outline
from didgen.report.reading import broken, finite, json_file, text_table
from didgen.report.tables import Cell, Row, Table

if TYPE_CHECKING:
    import pandas as pd

NAMES = {
    "layout_iou": "IoU with the condition",
    "segmenter_iou": "IoU with the segmenter",
    "contrast": "contrast of the map",
    "area": "area",
    "border_contact": "contact with the border",
    "pale_outside": "pale skin outside",
}


def filter_content(
    run_dir: Path, pairs: "pd.DataFrame", options: Options
) -> tuple[dict[str, Any] | None, list[str]]:
    """What the filter found, or None where the run has none; and what is missing.

    Raises: BrokenResult if a file of the filter is damaged.
    """
    folder = run_dir / "filter"
    path = folder / "summary.json"
    summary = json_file(path)
    if summary is None:
        return None, ["The pairs were not filtered in this run: all of them were used."]
    curve_path = folder / "curve.json"
    rejected = text_table(folder / "rejected.csv", ("id", "reasons"))
    shown, missing = [], []
    if rejected is not None:
        rows = pairs.set_index("id")
        known = rejected[rejected["id"].isin(rows.index)]
        if len(known) < len(rejected):
            missing.append(f"{len(rejected) - len(known)} rejected pairs are not in this run.")
        shown = [
            _rejected(rows.loc[name], name, reasons, options)
            for name, reasons in _by_turns(known, options.pairs)
        ]
    told = _object(path, summary, "segmenter")
    content = {
        "kept": int(finite(path, summary, "kept")),
        "rejected": int(finite(path, summary, "rejected")),
        "total": int(finite(path, summary, "n")),
        "table": _reasons(path, summary),
        "means": _means(path, summary),
        "segmenter_dice": finite(path, told, "val_dice"),
        "segmenter_n": int(finite(path, told, "n_train")),
        "chart": _curve(curve_path, json_file(curve_path)),
        "shown": shown,
    }
    return content, missing


def _object(path: Path, owner: dict[str, Any], key: str) -> dict[str, Any]:
    value = owner.get(key)
    if not isinstance(value, dict):
        raise broken(path, f"{value!r} under '{key}'", "an object")
    return value


def _reasons(path: Path, summary: dict[str, Any]) -> Table:
    """One row a bound: what it asks, how many pairs fail it, and how many fail it alone."""
    each, alone = (_object(path, summary, key) for key in ("by_reason", "by_reason_alone"))
    bounds = _object(path, summary, "thresholds")
    rows = []
    for name in each:
        bound = _object(path, bounds, name)
        low, high = bound.get("low"), bound.get("high")
        sign, value = ("\N{GREATER-THAN OR EQUAL TO}", low) if high is None else (
            "\N{LESS-THAN OR EQUAL TO}", high)  # fmt: skip
        asked = f"{NAMES.get(str(bound.get('score')), bound.get('score'))} {sign} {value:g}"
        cells = (
            Cell(text=asked),
            Cell(value=finite(path, each, name), places=0),
            Cell(value=finite(path, alone, name), places=0),
        )
        rows.append(Row(name, cells))
    note = "A pair may fail several bounds."
    columns = ("kept if", "rejected", "by this alone")
    return Table("Why pairs were rejected", "reason", columns, tuple(rows), note)


def _means(path: Path, summary: dict[str, Any]) -> Table:
    """The mean of every score, over all pairs and over those kept."""
    means = _object(path, summary, "means")
    groups = {name: _object(path, means, name) for name in ("all", "kept")}
    rows = [
        Row(words, tuple(_mean(path, group, score) for group in groups.values()))
        for score, words in NAMES.items()
    ]
    return Table("Mean scores of the pairs", "score", tuple(groups), tuple(rows))


def _mean(path: Path, group: dict[str, Any], score: str) -> Cell:
    # Null where no pair has the score.
    return Cell() if group.get(score) is None else Cell(value=finite(path, group, score))


def _curve(path: Path, found: dict[str, Any] | None) -> Any:
    """Mean quality of what remains against the share rejected, one line a score; or None."""
    if found is None:
        return None
    lines = []
    for index, curve in enumerate(found.get("curves", [])):
        points = curve.get("points", []) if isinstance(curve, dict) else []
        if not points:
            continue
        name = f"{NAMES.get(curve['quality'])}, rejecting by {NAMES.get(curve['score'])}"
        xs = [finite(path, point, "rejected") for point in points]
        ys = [finite(path, point, "quality") for point in points]
        lines.append(Line(name, xs, ys, index))
    if not lines:
        return None
    note = (
        "From left to right the pairs with the lowest score are left out. No line is measured by "
        "the score it rejects by."
    )
    title = "Quality of the pairs that remain"
    return line_chart("pairs-curve", title, lines, "share rejected", "mean IoU", note=note)


def _by_turns(rejected: "pd.DataFrame", wanted: int) -> list[tuple[str, str]]:
    """The first pairs of every combination of reasons in turn, so that none hides another."""
    turn = rejected.groupby("reasons").cumcount()
    ordered = rejected.assign(turn=turn).sort_values(["turn", "reasons", "id"]).head(wanted)
    return list(zip(ordered["id"], ordered["reasons"], strict=True))


def _rejected(row: Any, name: str, reasons: str, options: Options) -> dict[str, Any]:
    alt = f"Rejected pair {name} with its annotated outline: {reasons}"
    return {
        "id": name,
        "reasons": reasons,
        "picture": embed(Path(row["image"]), alt, options.picture_side, options.picture_quality),
        "annotated": mask_outline(Path(row["mask"])),
        "condition": mask_outline(Path(row["condition"])),
    }
