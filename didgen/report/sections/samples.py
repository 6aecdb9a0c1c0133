"""Samples: real training images of each class beside synthetic ones, drawn without looking."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from didgen.data.classes import CLASSES
from didgen.data.manifest import read_manifest, resolve
from didgen.report.page import Options, Section
from didgen.report.pictures import embed
from didgen.report.reading import lead_sets, synthetic_set, text_table

if TYPE_CHECKING:
    import pandas as pd


def section(run_dir: Path, options: Options) -> Section:
    """Embed `samples_per_class` real and synthetic images of every class."""
    real_path = run_dir / "data" / "train.csv"
    synthetic, missing = synthetic_set(lead_sets(run_dir), "images")
    if synthetic is None or synthetic.empty:
        if synthetic is not None or not missing:
            missing.append("No class-conditional images were made in this run.")
        return Section("samples", "Original and synthetic images", None, tuple(missing))
    real = None
    if real_path.is_file():
        real = read_manifest(real_path, check_files=False)
        real["image"] = resolve(real_path, real["image"])
    else:
        missing.append("There is no training split in this run, so no real images are shown.")
    table = text_table(run_dir / "caption" / "captions.csv", ("id", "caption"))
    captions = {} if table is None else dict(zip(table["id"], table["caption"], strict=True))
    own = synthetic["caption"] if "caption" in synthetic else [""] * len(synthetic)
    captions |= dict(zip(synthetic["id"], own, strict=True))
    groups = []
    for code, diagnosis in CLASSES.items():
        name = diagnosis.name
        fake = _rows(synthetic, code)
        true = _rows(real, code) if real is not None else None
        if len(fake) == 0 and (true is None or len(true) == 0):
            continue
        if len(fake) == 0:
            missing.append(f"No synthetic image of the class {name} ({code}) was made.")
        groups.append(
            {
                "code": code,
                "name": name,
                "n_real": 0 if true is None else len(true),
                "n_synthetic": len(fake),
                "real": _shown(true, "Original", name, captions, options),
                "synthetic": _shown(fake, "Synthetic", name, captions, options),
            }
        )
    content = {"groups": groups, "total": len(synthetic)}
    return Section("samples", "Original and synthetic images", content, tuple(missing))


def _rows(frame: "pd.DataFrame", code: str) -> "pd.DataFrame":
    return frame[frame["label"] == code]


def drawn(ids: list[str], count: int) -> list[str]:
    """`count` of the ids in an order that depends on the ids alone: none is hand-picked."""
    return sorted(ids, key=lambda name: hashlib.sha256(name.encode()).digest())[:count]


def _shown(
    rows: "pd.DataFrame | None",
    kind: str,
    name: str,
    captions: dict[str, str],
    options: Options,
) -> list[dict[str, Any]]:
    if rows is None:
        return []
    files = dict(zip(rows["id"], rows["image"], strict=True))
    shown = []
    for identifier in drawn(list(files), options.samples_per_class):
        caption = captions.get(identifier, "")
        alt = f"{kind} image, {name.lower()}: {caption or 'no caption'}"
        path = Path(files[identifier])
        picture = embed(path, alt, options.picture_side, options.picture_quality)
        shown.append({"id": identifier, "caption": caption, "picture": picture})
    return shown
