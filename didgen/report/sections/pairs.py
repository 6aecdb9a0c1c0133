"""Lesion-mask pairs: image, annotated mask and the mask asked for; what the filter rejected."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from didgen.data.classes import CLASSES
from didgen.report.figures import Chart, Line, histogram, line_chart
from didgen.report.numbers import mean_sd
from didgen.report.page import Options, Section
from didgen.report.pictures import embed, mask_outline
from didgen.report.reading import (
    broken,
    finite,
    json_file,
    lead_sets,
    synthetic_set,
    text_table,
)
from didgen.report.tables import Cell, Row, Table
from didgen.settings.methods import METHODS

if TYPE_CHECKING:
    import pandas as pd

TITLE = "Lesion-mask pairs"
SCORES = {
    "layout_iou": "IoU with the condition",
    "segmenter_iou": "IoU with the segmenter",
    "contrast": "contrast of the map",
    "area": "area",
    "border_contact": "contact with the border",
    "pale_outside": "pale skin outside",
}


def section(run_dir: Path, options: Options) -> Section:
    """Embed `pairs` pairs, spread evenly by layout IoU; without layouts, by area."""
    place = lead_sets(run_dir)
    frame, missing = synthetic_set(place, "pairs")
    if frame is None or frame.empty:
        if frame is not None or not missing:
            missing.append("No pairs were made in this run.")
        return Section("pairs", TITLE, None, tuple(missing))
    methods = sorted(set(frame.get("method", ())) & set(METHODS)) or ["didgen"]
    facts = METHODS[methods[0]]
    layout, read = "mask" in facts.reads, facts.mask == "read"
    score, words = ("layout_iou", "layout IoU") if read else ("area", "area of the lesion")
    for column in (score, "condition") if layout else (score,):
        if column not in frame:
            path = Path(frame["metadata"].iloc[0])
            raise broken(path, f"no column {column}", "one; every pair has it")
    frame["score"] = [
        _score(Path(path), score, text)
        for path, text in zip(frame["metadata"], frame[score], strict=True)
    ]
    known = frame[frame["score"].notna()]
    if len(known) < len(frame):
        missing.append(f"{len(frame) - len(known)} of {len(frame)} pairs have no {words}.")
    if known.empty:
        return Section("pairs", TITLE, None, (*missing, "No pair can be shown."))
    filtered, absent = _filter(place, frame, options)
    missing += absent
    values = known["score"].tolist()
    mean, spread = mean_sd(values)
    title = f"{words[0].upper()}{words[1:]} of all pairs"
    content = {
        "layout": layout,
        "mask": facts.mask,
        "score": words,
        "total": len(frame),
        "mean": mean,
        "sd": spread,
        "lowest": min(values),
        "highest": max(values),
        "chart": histogram("pairs-score", title, values, words),
        "shown": [_pair(row, layout, options) for row in _spread(known, options.pairs)],
        "filter": filtered,
    }
    return Section("pairs", TITLE, content, tuple(missing))


def _score(path: Path, column: str, text: str) -> float:
    if text.strip() == "":
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise broken(path, f"{text!r} in column {column}", "a number in [0, 1]")
    return value


def evenly(count: int, wanted: int) -> list[int]:
    """`wanted` of the indices 0 .. count - 1, evenly spaced, first and last included."""
    if wanted >= count:
        return list(range(count))
    if wanted == 1:
        return [count // 2]
    return [round(i * (count - 1) / (wanted - 1)) for i in range(wanted)]


def _spread(frame: "pd.DataFrame", wanted: int) -> list[Any]:
    ordered = frame.sort_values(["score", "id"], ascending=[False, True])
    return [ordered.iloc[index] for index in evenly(len(ordered), wanted)]


def _pair(row: Any, layout: bool, options: Options) -> dict[str, Any]:
    if not row["mask"] or (layout and not row["condition"]):
        wanted = "mask or condition" if layout else "mask"
        raise broken(Path(row["metadata"]), f"the pair {row['id']} without {wanted}", "the file")
    name = CLASSES[row["label"]].name if row["label"] else "no class"
    caption = row.get("caption", "")
    alt = f"Synthetic image with the outline of its mask, {name.lower()}: {caption or 'no caption'}"
    return {
        "id": row["id"],
        "name": name,
        "score": float(row["score"]),
        "seed": row.get("seed", ""),
        "parents": row.get("parent_ids", ""),
        "caption": caption,
        **_drawn(row, alt, options),
    }


def _drawn(row: Any, alt: str, options: Options) -> dict[str, Any]:
    """The picture of a pair and the outlines of its masks; no condition: None."""
    asked = row.get("condition", "")
    return {
        "picture": embed(Path(row["image"]), alt, options.picture_side, options.picture_quality),
        "own": mask_outline(Path(row["mask"])),
        "condition": mask_outline(Path(asked)) if asked else None,
    }


def _filter(
    place: Path, pairs: "pd.DataFrame", options: Options
) -> tuple[dict[str, Any] | None, list[str]]:
    """What the filter kept and rejected, or None where the run has none; and what is missing.

    Raises: BrokenResult if a file of the filter is damaged.
    """
    folder = place / "filter"
    path = folder / "summary.json"
    summary = json_file(path)
    if summary is None:
        return None, ["The pairs were not filtered in this run: all of them were used."]
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
    segmenter = _object(path, summary, "segmenter")
    content = {
        "kept": int(finite(path, summary, "kept")),
        "rejected": int(finite(path, summary, "rejected")),
        "total": int(finite(path, summary, "n")),
        "table": _reasons(path, summary),
        "means": _means(path, summary),
        "segmenter_dice": finite(path, segmenter, "val_dice"),
        "segmenter_n": int(finite(path, segmenter, "n_train")),
        "chart": _curve(folder / "curve.json"),
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
        asked = f"{SCORES.get(str(bound.get('score')), bound.get('score'))} {sign} {value:g}"
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
        Row(
            words,
            tuple(
                # Null where no pair has the score.
                Cell() if group.get(score) is None else Cell(value=finite(path, group, score))
                for group in groups.values()
            ),
        )
        for score, words in SCORES.items()
        if score in groups["all"]
    ]
    return Table("Mean scores of the pairs", "score", tuple(groups), tuple(rows))


def _curve(path: Path) -> Chart | None:
    """Mean quality of what remains against the share rejected, one line a score; or None."""
    lines = []
    for index, curve in enumerate((json_file(path) or {}).get("curves", [])):
        points = curve.get("points", []) if isinstance(curve, dict) else []
        if not points:
            continue
        name = f"{SCORES.get(curve['quality'])}, rejecting by {SCORES.get(curve['score'])}"
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
    alt = f"Rejected pair {name} with the outline of its mask: {reasons}"
    return {"id": name, "reasons": reasons, **_drawn(row, alt, options)}
