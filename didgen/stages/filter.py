"""Keep or reject lesion-mask pairs by their scores, and show what was rejected and why."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from didgen.data.images import read_image, read_mask
from didgen.data.manifest import read_manifest
from didgen.downstream.datasets import build
from didgen.downstream.segmenters import load_segmenter
from didgen.downstream.training import predict
from didgen.metrics.segmentation import iou
from didgen.metrics.selection import Gate, rejection_curve, rejections
from didgen.report.sheet import Tile, contact_sheet, pair_picture
from didgen.runtime.files import read_csv, sha256_file, write_csv, write_json, write_png, write_text
from didgen.runtime.outputs import output_folder, paths_read
from didgen.runtime.precision import default_device
from didgen.settings.filter import Config, Settings
from didgen.settings.methods import METHODS
from didgen.stages.failures import all_failed, all_rejected

LOGGER = logging.getLogger(__name__)
# Images that the segmenter sees before their outputs are dropped: bounds the memory.
CHUNK = 256
SCORES = ("layout_iou", "contrast", "segmenter_iou", "area", "border_contact", "pale_outside")


def run(config: Config) -> None:
    """Score every pair, and write who is kept (`scores.csv`, `kept.csv`), who is not and why.

    Bounds on scores that the pairs' method does not have, such as the agreement with a condition
    that it does not follow, are left out.

    Raises: `ValueError` when the segmenter saw synthetic images, when scores are missing, when all
    pairs failed or not one is kept.
    """
    with output_folder(config.out, "filter", paths_read(config)) as out:
        _filter(config, out)
    # Only now, so that what says why is in its place.
    if fault := all_rejected(config.out / "scores.csv"):
        raise ValueError(fault)


def _filter(config: Config, out: Path) -> None:
    frame = _read_pairs(config.pairs)
    segmenter = _segmenter_scores(config, frame)
    scores = {name: frame[name].to_numpy(float) for name in SCORES if name in frame}
    gates = [gate for gate in gates_of(config) if gate.score in scores]
    reasons = rejections(scores, gates)
    frame["reasons"] = ["; ".join(names) for names in reasons]
    kept, rejected = frame[frame["reasons"] == ""], frame[frame["reasons"] != ""]
    summary = _summary(frame, gates, reasons) | {"segmenter": segmenter}
    LOGGER.info("%d of %d pairs kept; rejected by: %s", len(kept), len(frame), summary["by_reason"])
    write_json(out / "summary.json", summary)
    write_json(out / "curve.json", _curves(frame, reasons))
    _draw_rejected(rejected, config.shown, out / "rejected.png")
    write_csv(out / "rejected.csv", rejected[["id", "reasons", *scores, "folder"]])
    write_csv(out / "kept.csv", kept.drop(columns="reasons"))
    table = pd.DataFrame(frame[["id", "sha256", *scores]])
    table["kept"] = (frame["reasons"] == "").map({True: "yes", False: "no"})
    write_csv(out / "scores.csv", table.assign(reasons=frame["reasons"]))
    write_text(out / "config.json", config.model_dump_json(indent=2) + "\n")


def gates_of(settings: Settings) -> list[Gate]:
    """The bounds as gates, in the order in which reasons are told."""
    return [
        Gate("mask unlike condition", "layout_iou", low=settings.min_layout_iou),
        Gate("mask unlike segmenter's", "segmenter_iou", low=settings.min_segmenter_iou),
        Gate("unclear map", "contrast", low=settings.min_contrast),
        Gate("too small", "area", low=settings.min_area),
        Gate("too large", "area", high=settings.max_area),
        Gate("cut by the border", "border_contact", high=settings.max_border_contact),
        Gate("pale glow", "pale_outside", high=settings.max_pale_outside),
    ]


def _read_pairs(folders: tuple[Path, ...]) -> pd.DataFrame:
    """The rows of all pairs, sorted by id; `folder` says where a row's files lie.

    Raises: `ValueError` where there is none, a score is missing, or methods differ.
    """
    parts = {}
    for folder in folders:
        table = folder / "metadata.csv"
        if len(read_csv(table, "pairs")):
            parts[table] = read_manifest(table).assign(folder=str(folder))
    if not parts:
        raise ValueError(all_failed("pairs", folders))
    methods = sorted({name for part in parts.values() for name in part.get("method", ())})
    if len(methods) > 1:
        raise ValueError(
            f"found pairs of {' and '.join(methods)}, expected those of one method, which have the "
            "same scores; filter each method's pairs apart"
        )
    lacks = METHODS[methods[0]].lacks if methods and methods[0] in METHODS else frozenset()
    needed = [name for name in SCORES if name not in {"segmenter_iou", *lacks}]
    for table, part in parts.items():
        absent = [name for name in needed if name not in part]
        if absent:
            raise ValueError(
                f"{table}: found no columns {', '.join(absent)}; run the pairs stage again"
            )
    frame = pd.concat(parts.values(), ignore_index=True).sort_values("id", ignore_index=True)
    twice = frame.loc[frame["id"].duplicated(), "id"].tolist()
    if twice:
        raise ValueError(f"found {len(twice)} ids in two folders ({twice[0]}); name each pair once")
    for name in [name for name in SCORES if name in frame]:
        # An absent score is no number, and fails every bound on it.
        frame[name] = pd.to_numeric(frame[name].replace("", None), errors="coerce")
    return frame


def _segmenter_scores(config: Config, frame: pd.DataFrame) -> dict[str, Any]:
    """Fill in the column `segmenter_iou`; returns what the segmenter says of itself."""
    model, card = load_segmenter(config.segmenter)
    if card.arm != "original":
        raise ValueError(
            f"{config.segmenter}: this segmenter was trained in arm {card.arm!r}, on synthetic "
            "images too; expected arm 'original', which knows only real training images"
        )
    scores = []
    for start in range(0, len(frame), CHUNK):
        part = frame.iloc[start : start + CHUNK]
        files = {
            column: [Path(f) / n for f, n in zip(part["folder"], part[column], strict=True)]
            for column in ("image", "mask")
        }
        data = build(part.assign(**files), card.image_size)
        scores.append(iou(_predicted(model, data), data.true_masks()))
    frame["segmenter_iou"] = np.concatenate(scores).round(4) if scores else []
    return asdict(card) | {"sha256": sha256_file(config.segmenter)}


def _predicted(model: Any, data: Any) -> np.ndarray:
    """Where the segmenter sees a lesion, bool (N, H, W), in single precision."""
    device = default_device()
    return predict(model.to(device), data, device, precision="float32")[:, 0] > 0


def _summary(frame: pd.DataFrame, gates: list[Gate], reasons: list[list[str]]) -> dict[str, Any]:
    kept = frame[frame["reasons"] == ""]
    rows = {gate.name: gate for gate in gates if (gate.low, gate.high) != (None, None)}
    return {
        "n": len(frame),
        "kept": len(kept),
        "rejected": len(frame) - len(kept),
        "by_reason": {name: sum(name in each for each in reasons) for name in rows},
        "by_reason_alone": {name: sum(each == [name] for each in reasons) for name in rows},
        "thresholds": {
            name: {"score": gate.score, "low": gate.low, "high": gate.high}
            for name, gate in rows.items()
        },
        "means": {"all": _means(frame), "kept": _means(kept)},
    }


def _means(frame: pd.DataFrame) -> dict[str, float | None]:
    """The mean of each score over the pairs that have it; null where none has."""
    known = {name: frame[name].dropna() for name in SCORES if name in frame}
    return {name: float(v.mean()) if len(v) else None for name, v in known.items()}


def _curves(frame: pd.DataFrame, reasons: list[list[str]]) -> dict[str, Any]:
    """Quality of what remains when the least confident share is rejected.

    No curve measures quality by the score that it rejects by: a rise says that two independent
    scores agree on what is good.
    """
    curves = []
    for score, quality in (
        ("layout_iou", "segmenter_iou"),
        ("contrast", "segmenter_iou"),
        ("segmenter_iou", "layout_iou"),
    ):
        if not {score, quality} <= set(frame):
            continue
        known = frame[[score, quality]].dropna()
        points = rejection_curve(known[score], known[quality]) if len(known) else []
        curves.append({"score": score, "quality": quality, "n": len(known), "points": points})
    others = [set(each) <= {"mask unlike segmenter's"} for each in reasons]
    remaining = (
        frame.loc[others, "segmenter_iou"].dropna() if len(frame) else pd.Series(dtype=float)
    )
    return {
        "curves": curves,
        # All bounds but the segmenter's own, judged by the segmenter.
        "without_segmenter": {
            "kept": len(remaining),
            "segmenter_iou": float(remaining.mean()) if len(remaining) else None,
        },
    }


def _draw_rejected(rejected: pd.DataFrame, shown: int, path: Path) -> None:
    """Draw the first pairs of every reason in turn, so that no reason hides another."""
    turn = rejected.groupby("reasons").cumcount()
    chosen = rejected.assign(turn=turn).sort_values(["turn", "reasons", "id"]).head(shown)
    tiles = []
    for row in chosen.sort_values(["reasons", "id"]).itertuples():
        folder = Path(row.folder)
        asked = getattr(row, "condition", "")
        picture = pair_picture(
            read_image(folder / row.image),
            read_mask(folder / row.mask),
            read_mask(folder / asked) if asked else None,
        )
        ious = f"condition {row.layout_iou:.2f}, " if asked else ""
        ious += f"segmenter {row.segmenter_iou:.2f}"
        tiles.append(Tile(picture, (row.id, row.reasons, ious)))
    if tiles:
        write_png(path, contact_sheet(tiles, 4))
