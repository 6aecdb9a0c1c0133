"""What the stage `maps` says of annotated masks (Eq. 7) against the true ones of real images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from didgen.attention.panels import truth_panel
from didgen.data.images import read_image, read_mask
from didgen.metrics.boundary import band_width, boundary_iou, hausdorff95
from didgen.metrics.segmentation import dice, iou
from didgen.metrics.selection import rejection_curve
from didgen.runtime.files import write_png

MEASURES = ("iou", "dice", "boundary_iou", "hd95")


def mask_scores(annotated: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """IoU, Dice and boundary IoU in [0, 1], and HD95 in px, of a mask; bool (H, W) both."""
    return {
        "annotated_iou": float(iou(annotated, true)),
        "annotated_dice": float(dice(annotated, true)),
        "annotated_boundary_iou": boundary_iou(annotated, true),
        "annotated_hd95": hausdorff95(annotated, true),
    }


def truth_summary(rows: Sequence[dict], height: int, width: int) -> dict[str, Any]:
    """Mean, spread, median and quartiles of each measure over the images, failures included."""
    summary: dict[str, Any] = {
        "compared_at": f"{width}x{height} px",
        "boundary_band_px": band_width(height, width),
        "n": len(rows),
        "n_failed": sum(row["failed"] for row in rows),
    }
    for name in MEASURES:
        values = np.array([row[f"annotated_{name}"] for row in rows])
        low, middle, high = np.percentile(values, [25, 50, 75])
        spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        summary[name] = {
            "mean": float(values.mean()), "sd": spread, "median": float(middle),
            "quartiles": [float(low), float(high)],
        }  # fmt: skip
    # Does the score that pairs are filtered by tell which masks are right? Only real masks show it.
    contrast = [row["contrast"] for row in rows]
    summary["rejection_by_contrast"] = rejection_curve(
        np.array(contrast), np.array([row["annotated_iou"] for row in rows])
    )
    return summary


def extremes(rows: Sequence[dict], each: int) -> list[tuple[str, int]]:
    """Which rows to show: `each` best, middle and worst by IoU, as (kind, index), none twice."""
    order = sorted(range(len(rows)), key=lambda i: (-rows[i]["annotated_iou"], rows[i]["id"]))
    each = min(each, len(order) // 3) or min(each, 1)
    if len(order) < 3:
        return [("best", index) for index in order[:each]]
    start = (len(order) - each) // 2
    return [
        *(("best", index) for index in order[:each]),
        *(("median", index) for index in order[start : start + each]),
        *(("worst", index) for index in order[-each:] if each),
    ]


def draw_extremes(
    rows: Sequence[dict], frame: pd.DataFrame, masks: np.ndarray, each: int, out: Path
) -> list[dict[str, Any]]:
    """Write `truth/*.png`, a panel an image: the image, the true outline, the annotated one.

    `masks`: the annotated ones, bool (N, H, W), in the order of `rows` and `frame`.
    """
    drawn = []
    for kind, index in extremes(rows, each):
        row = rows[index]
        image, true = read_image(frame["image"].iloc[index]), read_mask(frame["mask"].iloc[index])
        name = f"truth/{kind}_{row['id']}.png"
        write_png(out / name, truth_panel(image, true, masks[index]))
        scores = {key: row[key] for key in row if key.startswith("annotated_")}
        drawn.append({"kind": kind, "id": row["id"], "panel": name, **scores})
    return drawn
