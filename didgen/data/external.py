"""External test sets: data that nothing is trained on, apart from what networks learn from."""

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd

from didgen.data.selection import Choice
from didgen.data.sources.records import Record, SourceError
from didgen.data.splits import related_groups
from didgen.settings.arms import Task

LOGGER = logging.getLogger(__name__)
# ISIC 2019 calls images of the archive so that it had made smaller.
SMALLER = "_downsampled"


def choose_external(
    records: Sequence[Record], classes: Sequence[str], tasks: Sequence[Task], name: str
) -> Choice:
    """The images that can be tested on: of the run's classes, or with a mask and no label.

    Raises: `SourceError` where none of the tasks can be tested.
    """
    offered = sorted((r for r in records if not r.excluded), key=lambda record: record.id)
    kept = [record for record in offered if not record.label or record.label in classes]
    excluded = [record for record in records if record.excluded]
    left = {"other classes": len(offered) - len(kept)}
    for record in excluded:
        left[record.excluded] = left.get(record.excluded, 0) + 1
    labels = {record.label for record in kept} - {""}
    masks = sum(record.pixels.has_mask for record in kept)
    if not ("segmentation" in tasks and masks or "classification" in tasks and len(labels) > 1):
        raise SourceError(
            f"external set {name}: found {len(kept)} images of data.classes, with {len(labels)} "
            f"diagnoses and {masks} masks, expected at least two diagnoses or one mask, as "
            f"data.tasks ({', '.join(tasks)}) need them; leave the set out"
        )
    return Choice(kept, [], excluded, left)


def related_to(own: pd.DataFrame, external: pd.DataFrame, learned: np.ndarray) -> np.ndarray:
    """Mark external images that are related to images that are learned from; bool (E,).

    By id, lesion, patient or look, directly or through others. Columns needed: id, lesion_id,
    patient_id, cluster. learned: bool, of the rows of `own`.
    """
    both = pd.concat([own, external], ignore_index=True)
    both["id"] = [name.removesuffix(SMALLER) for name in both["id"]]
    keys = ("id", "lesion_id", "patient_id", "cluster")
    groups = related_groups(*(both[key].tolist() for key in keys))
    return np.isin(groups[len(own) :], groups[: len(own)][learned])
