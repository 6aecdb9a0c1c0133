"""Which records of a source a run takes, checked before any pixel is read."""

import hashlib
import logging
from collections.abc import Sequence

import pandas as pd

from didgen.data.manifest import SPLITS, check_identities
from didgen.data.sources.records import Record, SourceError
from didgen.data.splits import SplitError

LOGGER = logging.getLogger(__name__)


def choose_records(
    records: Sequence[Record],
    classes: Sequence[str],
    max_per_class: int | None,
    max_masks: int | None,
    seed: int,
) -> tuple[list[Record], dict[str, int]]:
    """Apply the limits, drawing by seed; say how many images each rule left out.

    Raises: `SourceError` when a class has no image.
    """

    def order(record: Record) -> bytes:
        return hashlib.sha256(f"{seed}/{record.id}".encode()).digest()

    kept, taken, left = [], {}, {"other classes": 0, "over max_per_class": 0, "over max_masks": 0}
    for record in sorted(records, key=order):
        limit = max_per_class if record.label else max_masks
        if record.label and record.label not in classes:
            left["other classes"] += 1
        elif limit is not None and taken.get(record.label, 0) >= limit:
            left["over max_per_class" if record.label else "over max_masks"] += 1
        else:
            taken[record.label] = taken.get(record.label, 0) + 1
            kept.append(record)
    absent = [code for code in classes if not taken.get(code)]
    if absent:
        raise SourceError(
            f"data.classes asks for {absent}, but the source has no image of them; found "
            f"{sorted(code for code in taken if code)}; remove them from data.classes"
        )
    for rule, count in left.items():
        if count:
            LOGGER.info("%d of %d images left out: %s", count, len(records), rule)
    return sorted(kept, key=lambda record: record.id), left


def identities(records: Sequence[Record]) -> pd.DataFrame:
    """The records as a table without pixels: id, label, split, lesion_id, patient_id, mask."""
    columns = ("id", "label", "split", "lesion_id", "patient_id")
    frame = pd.DataFrame([{c: getattr(r, c) for c in columns} for r in records], columns=columns)
    return frame.assign(mask=[record.pixels.has_mask for record in records])


def check_official(frame: pd.DataFrame, where: str) -> None:
    """Check that every record brings a split, and a known one. Raises: `SourceError`,
    `ManifestError`.
    """
    unsplit = frame.loc[frame["split"] == "", "id"].tolist()
    if unsplit:
        more = ", ..." if len(unsplit) > 5 else ""
        raise SourceError(
            f"splits: official, but {len(unsplit)} images have no split "
            f"({', '.join(unsplit[:5])}{more}); fill the split column or use splits: grouped"
        )
    check_identities(frame, where)


def check_splits(frame: pd.DataFrame, remedy: str) -> None:
    """Check that every split can be judged: at least two diagnoses and one mask in each.

    Columns needed: label, split, mask (truth or name). Raises: `SplitError`.
    """
    found = {split: int((frame["split"] == split).sum()) for split in SPLITS}
    empty = [split for split in SPLITS if not found[split]]
    if empty:
        raise SplitError(
            f"no image for {' and '.join(empty)}: found "
            f"{ {split: n for split, n in found.items() if n} }, expected at least one image in "
            f"each of {', '.join(SPLITS)}; {remedy}"
        )
    for split, rows in frame.groupby("split"):
        labels, masks = set(rows["label"]) - {""}, int(rows["mask"].astype(bool).sum())
        if len(labels) < 2 or not masks:
            raise SplitError(
                f"split {split}: found labels {sorted(labels)} and {masks} masks "
                f"in {len(rows)} images, expected at least two diagnoses and one mask: the verdict "
                "judges a classifier and a segmenter on every split; add labelled images or masks"
            )
