"""Leaks: related images in different splits, found, counted and, if wished, removed."""

import logging
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from didgen.data.duplicates import Pair
from didgen.data.manifest import SPLITS
from didgen.data.splits import related_groups

LOGGER = logging.getLogger(__name__)
Policy = Literal["drop", "error", "warn"]
KINDS = ("exact", "near", "lesion", "patient")
SHOWN_PAIRS = 500


class LeakError(ValueError):
    """Official splits that share lesions, patients or photographs, where that is not wanted."""


def groups_of(frame: pd.DataFrame) -> np.ndarray:
    """Number the groups of related images by columns lesion_id, patient_id, cluster. (N,)."""
    columns = ("lesion_id", "patient_id", "cluster")
    return related_groups(*(frame[column].tolist() for column in columns))


def crossing_pairs(frame: pd.DataFrame, duplicates: Sequence[Pair]) -> list[Pair]:
    """All pairs of related images in different splits, each once, by its closest relation.

    Columns needed: split, lesion_id, patient_id; `duplicates` number the rows.
    """
    split = frame["split"].to_numpy()
    pairs = {(p.a, p.b): p for p in duplicates if split[p.a] != split[p.b]}
    for kind in ("lesion", "patient"):
        for a, b in _same_and_crossing(frame[f"{kind}_id"], split):
            pairs.setdefault((a, b), Pair(a, b, kind))
    return sorted(pairs.values(), key=lambda pair: (KINDS.index(pair.kind), pair.a, pair.b))


def _same_and_crossing(names: pd.Series, split: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of rows of one name in different splits."""
    numbers = pd.Series(np.arange(len(names)))
    known = (names != "").to_numpy()
    pairs = []
    for _, group in numbers[known].groupby(names.to_numpy()[known]):
        rows = group.to_numpy()
        if len(set(split[rows])) > 1:
            one, other = np.triu_indices(len(rows), 1)
            cross = split[rows[one]] != split[rows[other]]
            pairs += zip(rows[one[cross]].tolist(), rows[other[cross]].tolist(), strict=True)
    return pairs


def relatives_to_drop(split: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Mark the images whose group also stands in a later split of train, val, test. Bool (N,).

    What is tested on stays: relatives are taken from train first, then from val, never from test.
    """
    rank = np.array([SPLITS.index(name) for name in split])
    latest = np.zeros(int(groups.max(initial=-1)) + 1, int)
    np.maximum.at(latest, groups, rank)
    return rank < latest[groups]


def apply_policy(
    frame: pd.DataFrame, duplicates: Sequence[Pair], policy: Policy
) -> tuple[np.ndarray, list[Pair]]:
    """Audit official splits: which rows stay (bool (N,)), and the pairs that cross splits.

    Columns needed: id, split, lesion_id, patient_id, cluster. `drop` leaves relatives of test
    images out of train and val, and those of val images out of train; `warn` only tells; `error`
    raises `LeakError` with counts by kind and the first pairs.
    """
    crossing = crossing_pairs(frame, duplicates)
    keep = np.ones(len(frame), bool)
    if not crossing:
        LOGGER.info("official splits: no related images in two splits")
        return keep, crossing
    told = f"official splits: {describe(crossing, frame)}"
    if policy == "error":
        raise LeakError(
            f"{told}; set data.on_leak: drop to leave relatives of test images out of the training "
            "set, on_leak: warn to keep them, or data.splits: grouped for splits without leaks"
        )
    if policy == "warn":
        LOGGER.warning("%s; they stay where they are (data.on_leak: warn)", told)
        return keep, crossing
    keep = ~relatives_to_drop(frame["split"].to_numpy(), groups_of(frame))
    lost = frame.loc[~keep, "split"].value_counts()
    LOGGER.warning(
        "%s; left out: %d of train, %d of val", told, lost.get("train", 0), lost.get("val", 0)
    )
    return keep, crossing


def describe(pairs: Sequence[Pair], frame: pd.DataFrame) -> str:
    """How many pairs of which kind, and the first few by their ids."""
    counts = _by_kind(pairs)
    kinds = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind])
    ids, split = frame["id"].to_numpy(), frame["split"].to_numpy()
    shown = ", ".join(f"{ids[p.a]} ({split[p.a]}) and {ids[p.b]} ({split[p.b]})" for p in pairs[:3])
    more = ", ..." if len(pairs) > 3 else ""
    return f"{len(pairs)} pairs of related images stand in two splits: {kinds} ({shown}{more})"


def leak_table(
    frame: pd.DataFrame,
    duplicates: Sequence[Pair],
    crossing: Sequence[Pair],
    keep: np.ndarray,
    policy: Policy,
    finder: str,
    official: bool,
) -> dict[str, Any]:
    """What `leaks.json` tells. `frame`: all images, those left out too, with their first splits.

    The pairs are those that cross official splits, or the duplicates found among images that were
    then split by group; at most 500 are listed, the closest relations first, and all are counted.
    """
    shown = list(crossing) if official else list(duplicates)
    shown.sort(key=lambda pair: (KINDS.index(pair.kind), pair.distance or 0.0, pair.a, pair.b))
    ids, split = frame["id"].to_numpy(), frame["split"].to_numpy()
    counts = _by_kind(duplicates)
    return {
        "policy": policy if official else "grouped",
        "finder": finder,
        "n_images": len(frame),
        "n_groups": int(np.unique(groups_of(frame)).size),
        "clusters": {"exact": counts["exact"], "near": counts["near"]},
        "n_clusters": int(frame.loc[frame["cluster"] != "", "cluster"].nunique()),
        "largest_cluster": int(frame.loc[frame["cluster"] != "", "cluster"].value_counts().max())
        if (frame["cluster"] != "").any()
        else 0,
        "n_conflicting": conflicting_labels(frame, duplicates),
        "n_pairs": len(shown),
        "pairs": [
            {
                "a": ids[pair.a],
                "b": ids[pair.b],
                "kind": pair.kind,
                "distance": pair.distance,
                "split_a": split[pair.a],
                "split_b": split[pair.b],
            }
            for pair in shown[:SHOWN_PAIRS]
        ],
        "n_crossing": len(crossing),
        "dropped": ids[~keep].tolist(),
    }


def conflicting_labels(frame: pd.DataFrame, duplicates: Sequence[Pair]) -> int:
    """How many pairs of duplicates bear two different diagnoses; needs the column label."""
    labels = frame["label"].to_numpy()
    return sum(bool(labels[p.a] and labels[p.b] and labels[p.a] != labels[p.b]) for p in duplicates)


def _by_kind(pairs: Sequence[Pair]) -> dict[str, int]:
    return {kind: sum(pair.kind == kind for pair in pairs) for kind in KINDS}
