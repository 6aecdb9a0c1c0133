"""External test sets: data that nothing is trained on, apart from what networks learn from."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from didgen.data.leaks import groups_of
from didgen.data.selection import Choice, identities
from didgen.data.sources.records import Record, SourceError
from didgen.data.splits import related_groups
from didgen.settings.arms import Task

# ISIC 2019 calls images of the archive so that it had made smaller.
SMALLER = "_downsampled"
RELATIONS = {"id": "id", "lesion_id": "lesion", "patient_id": "patient", "cluster": "look"}


def choose_external(
    records: Sequence[Record], classes: Sequence[str], tasks: Sequence[Task]
) -> Choice:
    """The images that can be tested on: of the run's classes, with what one of the tasks needs.

    Raises: `SourceError` where none of the tasks can be tested.
    """
    kept, passed = [], []
    left = {"other classes": 0, "without what data.tasks needs": 0}
    for record in sorted((r for r in records if not r.excluded), key=lambda record: record.id):
        serves = (record.label and "classification" in tasks) or (
            record.pixels.has_mask and "segmentation" in tasks
        )
        if record.label and record.label not in classes:
            left["other classes"] += 1
        elif not serves:
            left["without what data.tasks needs"] += 1
        else:
            kept.append(record)
            continue
        passed.append(record)
    excluded = [record for record in records if record.excluded]
    for record in excluded:
        left[record.excluded] = left.get(record.excluded, 0) + 1
    check_testable(identities(kept), tasks)
    return Choice(kept, passed, excluded, left)


def tasks_served(frame: pd.DataFrame, tasks: Sequence[Task]) -> list[Task]:
    """The tasks that images can test. Columns needed: label, mask, lesion_id, patient_id.

    Classification takes two diagnoses, and each task images of two lesions or patients.
    """
    have = {"classification": frame["label"] != "", "segmentation": frame["mask"].astype(bool)}
    able = []
    for task in tasks:
        rows = frame[have[task]]
        independent = len(np.unique(groups_of(rows))) > 1 if len(rows) else False
        if independent and (task == "segmentation" or rows["label"].nunique() > 1):
            able.append(task)
    return able


def check_testable(frame: pd.DataFrame, tasks: Sequence[Task]) -> list[Task]:
    """The tasks that images can test. Raises: `SourceError` for none; else as `tasks_served`."""
    able = tasks_served(frame, tasks)
    if not able:
        labels = sorted(set(frame["label"]) - {""})
        raise SourceError(
            f"found {len(frame)} images that can be tested on, with the diagnoses {labels} and "
            f"{int(frame['mask'].astype(bool).sum())} masks, expected images of two lesions or "
            f"patients, and for classification of two diagnoses of data.classes; leave the set out"
        )
    return able


def related_to(frame: pd.DataFrame, learned: np.ndarray) -> np.ndarray:
    """Mark images that are related to images that are learned from, and these; bool (N,).

    By id, lesion, patient or look (`cluster`), directly or through others. learned: bool (N,).
    """
    groups = related_groups(*(_keys(frame)[key].tolist() for key in RELATIONS))
    return np.isin(groups, groups[learned])


def relations(frame: pd.DataFrame, learned: np.ndarray, images: np.ndarray) -> dict[str, int]:
    """How many of some images (bool (N,)) are related directly, by id, lesion, patient and look."""
    keys = _keys(frame)
    return {
        word: int(keys.loc[images, key].isin(set(keys.loc[learned, key]) - {""}).sum())
        for key, word in RELATIONS.items()
    }


def _keys(frame: pd.DataFrame) -> pd.DataFrame:
    ids = [name.removesuffix(SMALLER) for name in frame["id"]]
    return frame[list(RELATIONS)].assign(id=ids)
