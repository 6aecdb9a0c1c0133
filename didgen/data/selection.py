"""Which records of a source a run takes, checked before any pixel is read."""

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from didgen.data.manifest import SPLITS
from didgen.data.sources.records import Record, SourceError
from didgen.data.splits import SplitError
from didgen.settings.arms import Task

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """The records of a source, each in one of three lists, sorted by id.

    kept: what is prepared; passed_over: images that a limit or `classes` leaves out, which may
    still relate two that are kept; excluded: rows that the source itself cannot offer, which relate
    others by their ids alone. left_out: by rule, how many of the latter two.
    """

    kept: list[Record]
    passed_over: list[Record]
    excluded: list[Record]
    left_out: dict[str, int]

    @property
    def everyone(self) -> list[Record]:
        """All records: first those kept, then those passed over, last those excluded."""
        return [*self.kept, *self.passed_over, *self.excluded]

    def in_order(self, identified: Sequence[str]) -> list[Record]:
        """`everyone`, of those passed over first the ones identified by their pixels."""
        seen = set(identified)
        passed = sorted(self.passed_over, key=lambda record: record.id not in seen)
        return [*self.kept, *passed, *self.excluded]


def choose_records(
    records: Sequence[Record],
    classes: Sequence[str],
    max_per_class: int | None,
    max_masks: int | None,
    seed: int,
    tasks: Sequence[Task],
) -> Choice:
    """Apply the limits, drawing by seed; say how many images each rule left out.

    Raises: `SourceError` when nothing is left, or, for classification, a class has no image.
    """

    def order(record: Record) -> bytes:
        return hashlib.sha256(f"{seed}/{record.id}".encode()).digest()

    kept, passed, taken = [], [], Counter()
    excluded = [record for record in records if record.excluded]
    left = {"other classes": 0, "over max_per_class": 0, "over max_masks": 0}
    for record in sorted((r for r in records if not r.excluded), key=order):
        limit = max_per_class if record.label else max_masks
        if record.label and record.label not in classes:
            rule = "other classes"
        elif limit is not None and taken[record.label] >= limit:
            rule = "over max_per_class" if record.label else "over max_masks"
        else:
            taken[record.label] += 1
            kept.append(record)
            continue
        left[rule] += 1
        passed.append(record)
    absent = [code for code in classes if not taken[code]]
    if absent and "classification" in tasks:
        raise SourceError(
            f"data.classes asks for {absent}, but the source has no image of them; found "
            f"{sorted(code for code in taken if code)}; remove them from data.classes"
        )
    if not kept:
        raise SourceError(f"data.classes leaves none of {len(records)} images; name other classes")
    left |= Counter(record.excluded for record in excluded)
    for rule, count in left.items():
        if count:
            LOGGER.info("%d of %d images left out: %s", count, len(records), rule)
    kept, passed, excluded = (
        sorted(part, key=lambda record: record.id) for part in (kept, passed, excluded)
    )
    return Choice(kept, passed, excluded, left)


def identities(records: Sequence[Record]) -> pd.DataFrame:
    """The records as a table without pixels: id, label, split, lesion_id, patient_id, mask."""
    columns = ("id", "label", "split", "lesion_id", "patient_id")
    frame = pd.DataFrame([{c: getattr(r, c) for c in columns} for r in records], columns=columns)
    return frame.assign(mask=[record.pixels.has_mask for record in records])


def check_splits(frame: pd.DataFrame, remedy: str, tasks: Sequence[Task]) -> None:
    """Check that every split can evaluate the tasks: two diagnoses, or one mask, in each.

    Columns needed: label, split, mask (truth or name). Raises: `SplitError`.
    """
    counts = {split: int((frame["split"] == split).sum()) for split in SPLITS}
    empty = [split for split in SPLITS if not counts[split]]
    if empty:
        raise SplitError(
            f"no image for {' and '.join(empty)}: found "
            f"{ {split: n for split, n in counts.items() if n} }, expected at least one image in "
            f"each of {', '.join(SPLITS)}; {remedy}"
        )
    for split, rows in frame.groupby("split"):
        labels, masks = sorted(set(rows["label"]) - {""}), int(rows["mask"].astype(bool).sum())
        where = f"split {split}: found labels {labels} and {masks} masks in {len(rows)} images"
        if "classification" in tasks and len(labels) < 2:
            raise SplitError(
                f"{where}, expected at least two diagnoses: the verdict tests a classifier on "
                "every split; add labelled images, or set data.tasks: [segmentation] to do "
                "without a classifier"
            )
        if "segmentation" in tasks and not masks:
            raise SplitError(
                f"{where}, expected at least one mask: the verdict tests a segmenter on every "
                "split; add masks, or set data.tasks: [classification] to do without pairs and "
                "without a segmenter"
            )
