"""The sample sheet: prepared images of every class, split and source, their masks outlined."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from didgen.data.classes import CLASSES
from didgen.data.manifest import SPLITS
from didgen.report.page import Options
from didgen.report.pictures import embed, mask_outline
from didgen.report.sections.data_origin import UNNAMED
from didgen.report.sections.samples import drawn

if TYPE_CHECKING:
    import pandas as pd

# A class may come from many sources; of each class and split, one image each of so many is shown.
PER_CELL = 2
SIDE = 128


def sheet(folder: Path, frame: "pd.DataFrame", options: Options) -> list[dict[str, Any]]:
    """At most `PER_CELL` images of every class and split, of different sources, drawn by hash.

    `folder` holds the images of the manifest `frame`. No images where `options` asks for no
    samples. Raises: BrokenResult if an image or mask cannot be read.
    """
    cells = min(PER_CELL, options.samples_per_class)
    chosen = []
    for code in [*CLASSES, ""]:
        for split in SPLITS:
            rows = frame[(frame["label"] == code) & (frame["split"] == split)]
            firsts = [drawn(list(group["id"]), 1)[0] for _, group in rows.groupby("source")]
            chosen += [(split, identifier) for identifier in drawn(firsts, cells)]
    by_id = frame.set_index("id")
    return [_tile(folder, by_id.loc[name], split, name, options) for split, name in chosen]


def _tile(folder: Path, row: Any, split: str, name: str, options: Options) -> dict[str, Any]:
    diagnosis = CLASSES[row["label"]].name if row["label"] else "No label"
    source = row["source"] or UNNAMED
    outlined = "with the outline of its mask" if row["mask"] else "without a mask"
    alt = f"{diagnosis}, {split} split, {source}, {outlined}"
    side = min(SIDE, options.picture_side)
    return {
        "id": name,
        "code": row["label"] or "no label",
        "split": split,
        "source": source,
        "picture": embed(folder / row["image"], alt, side, options.picture_quality),
        "outline": mask_outline(folder / row["mask"]) if row["mask"] else None,
    }
