"""Lesion-mask pairs: each synthetic image with its annotated mask, beside the mask asked for."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from didgen.data.classes import CLASSES
from didgen.report.figures import histogram
from didgen.report.numbers import mean_sd
from didgen.report.page import Options, Section
from didgen.report.pictures import embed, mask_outline
from didgen.report.reading import broken, synthetic_set
from didgen.report.sections.pairs_filter import filter_content

if TYPE_CHECKING:
    import pandas as pd

TITLE = "Lesion-mask pairs"


def section(run_dir: Path, options: Options) -> Section:
    """Embed `pairs` pairs, spread evenly from the lowest to the highest layout IoU."""
    frame, missing = synthetic_set(run_dir, "pairs", ("condition", "layout_iou"))
    if frame is None or frame.empty:
        if frame is not None or not missing:
            missing.append("No pairs were made in this run.")
        return Section("pairs", TITLE, None, tuple(missing))
    frame["iou"] = [
        _iou(Path(path), text)
        for path, text in zip(frame["metadata"], frame["layout_iou"], strict=True)
    ]
    known = frame[frame["iou"].notna()]
    if len(known) < len(frame):
        missing.append(f"{len(frame) - len(known)} of {len(frame)} pairs have no layout IoU.")
    if known.empty:
        return Section("pairs", TITLE, None, (*missing, "No pair can be shown."))
    filtered, told = filter_content(run_dir, frame, options)
    missing += told
    values = known["iou"].tolist()
    mean, spread = mean_sd(values)
    content = {
        "total": len(frame),
        "mean": mean,
        "sd": spread,
        "lowest": min(values),
        "highest": max(values),
        "chart": histogram("pairs-iou", "Layout IoU of all pairs", values, "layout IoU"),
        "shown": [_pair(row, options) for row in _spread(known, options.pairs)],
        "filter": filtered,
    }
    return Section("pairs", TITLE, content, tuple(missing))


def _iou(path: Path, text: str) -> float:
    if text.strip() == "":
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise broken(path, f"{text!r} in column layout_iou", "a number in [0, 1]")
    return value


def evenly(count: int, wanted: int) -> list[int]:
    """`wanted` of the indices 0 .. count - 1, evenly spaced, first and last included."""
    if wanted >= count:
        return list(range(count))
    if wanted == 1:
        return [count // 2]
    return [round(i * (count - 1) / (wanted - 1)) for i in range(wanted)]


def _spread(frame: "pd.DataFrame", wanted: int) -> list[Any]:
    ordered = frame.sort_values(["iou", "id"], ascending=[False, True])
    return [ordered.iloc[index] for index in evenly(len(ordered), wanted)]


def _pair(row: Any, options: Options) -> dict[str, Any]:
    if not row["mask"] or not row["condition"]:
        raise broken(
            Path(row["metadata"]), f"the pair {row['id']} without mask or condition", "both files"
        )
    name = CLASSES[row["label"]].name if row["label"] else "no class"
    caption = row.get("caption", "")
    alt = f"Synthetic image with its annotated outline, {name.lower()}: {caption or 'no caption'}"
    return {
        "id": row["id"],
        "name": name,
        "iou": float(row["iou"]),
        "seed": row.get("seed", ""),
        "parents": row.get("parent_ids", ""),
        "caption": caption,
        "picture": embed(Path(row["image"]), alt, options.picture_side, options.picture_quality),
        "annotated": mask_outline(Path(row["mask"])),
        "condition": mask_outline(Path(row["condition"])),
    }
