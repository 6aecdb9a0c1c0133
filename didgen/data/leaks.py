"""Leaks: related images in different splits, found, counted and, if wished, removed."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from didgen.data.duplicates import Pair
from didgen.data.manifest import SPLITS
from didgen.data.splits import related_groups
from didgen.settings.data import LeakPolicy

LOGGER = logging.getLogger(__name__)
KINDS = ("exact", "near", "lesion", "patient")
SHOWN_PAIRS = 500
# In the manifests' column `leak`: the image has a relative in another split, and the user wants it
# there (on_leak: warn). Later stages then warn where they would refuse.
ACCEPTED = "accepted"


class LeakError(ValueError):
    """Official splits that share lesions, patients or photographs, where that is not wanted."""


@dataclass(frozen=True)
class Leaks:
    """What crosses splits. pairs: related directly; chains: rows (a, b) of groups that no such pair
    shows, since what relates them was itself left out of the run.
    """

    pairs: list[Pair]
    chains: list[tuple[int, int]]

    def __bool__(self) -> bool:
        return bool(self.pairs or self.chains)


def groups_of(frame: pd.DataFrame) -> np.ndarray:
    """Number the groups of images of one lesion, patient or cluster of duplicates (N,).

    Directly or through others. Photographs of one patient resemble each other more than those of
    two, as do those of one lesion. "" is unknown and relates to nothing, as does a column among
    lesion_id, patient_id and cluster that the table has not.
    """
    keys = [
        frame[column].fillna("").tolist()
        for column in ("lesion_id", "patient_id", "cluster")
        if column in frame
    ]
    return related_groups(*keys) if keys else np.arange(len(frame))


def find_leaks(frame: pd.DataFrame, duplicates: Sequence[Pair], groups: np.ndarray) -> Leaks:
    """All that crosses splits. `groups` (N,) may know relations through images not in `frame`."""
    pairs = crossing_pairs(frame, duplicates)
    split = frame["split"].to_numpy()
    shown = {int(groups[pair.a]) for pair in pairs}
    chains = []
    for group, rows in pd.Series(np.arange(len(frame))).groupby(groups):
        ranks = [SPLITS.index(name) for name in split[rows]]
        if group not in shown and len(set(ranks)) > 1:
            earliest, latest = rows.iloc[int(np.argmin(ranks))], rows.iloc[int(np.argmax(ranks))]
            chains.append((int(earliest), int(latest)))
    return Leaks(pairs, chains)


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


def in_two_splits(split: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Mark the images whose group also stands in another split. Bool (N,)."""
    names = pd.Series(split)
    return (names.groupby(groups).transform("nunique") > 1).to_numpy()


def apply_policy(
    frame: pd.DataFrame, leaks: Leaks, policy: LeakPolicy, groups: np.ndarray
) -> np.ndarray:
    """Act on what crosses official splits: which rows stay, bool (N,).

    Columns needed: id, split. `drop` leaves relatives of test images out of train and val, and
    those of val images out of train; `warn` only logs; `error` raises `LeakError` with counts by
    kind and the first pairs.
    """
    keep = np.ones(len(frame), bool)
    if not leaks:
        LOGGER.info("official splits: no related images in two splits")
        return keep
    message = f"official splits: {describe(leaks, frame)}"
    if policy == "error":
        raise LeakError(
            f"{message}; set data.on_leak: drop to leave relatives of test images out of the "
            "training set, on_leak: warn to keep them, or data.splits: grouped for splits without "
            "leaks"
        )
    if policy == "warn":
        LOGGER.warning("%s; they stay where they are (data.on_leak: warn)", message)
        return keep
    keep = ~relatives_to_drop(frame["split"].to_numpy(), groups)
    lost = frame.loc[~keep, "split"].value_counts()
    LOGGER.warning(
        "%s; left out: %d of train, %d of val", message, lost.get("train", 0), lost.get("val", 0)
    )
    return keep


def describe(leaks: Leaks, frame: pd.DataFrame) -> str:
    """How many pairs of which kind, and the first few by their ids."""
    counts = _by_kind(leaks.pairs)
    kinds = [f"{counts[kind]} {kind}" for kind in KINDS if counts[kind]]
    kinds += [f"{len(leaks.chains)} through images left out"] if leaks.chains else []
    ids, split = frame["id"].to_numpy(), frame["split"].to_numpy()
    rows = [(pair.a, pair.b) for pair in leaks.pairs] + leaks.chains
    shown = ", ".join(f"{ids[a]} ({split[a]}) and {ids[b]} ({split[b]})" for a, b in rows[:3])
    more = ", ..." if len(rows) > 3 else ""
    return (
        f"{len(rows)} pairs of related images stand in two splits: {', '.join(kinds)} "
        f"({shown}{more})"
    )


def leak_table(
    frame: pd.DataFrame,
    duplicates: Sequence[Pair],
    leaks: Leaks,
    keep: np.ndarray,
    groups: np.ndarray,
    policy: LeakPolicy | Literal["grouped"],
    finder: str,
) -> dict[str, Any]:
    """The content of `leaks.json`. `frame`: all images, those dropped too, with their first splits.

    The pairs are those that cross official splits, or, of images that were split by group (policy
    "grouped"), the duplicates found; at most 500 are listed, the closest relations first, and all
    are counted.
    """
    shown = list(duplicates) if policy == "grouped" else list(leaks.pairs)
    shown.sort(key=lambda pair: (KINDS.index(pair.kind), pair.distance or 0.0, pair.a, pair.b))
    ids, split = frame["id"].to_numpy(), frame["split"].to_numpy()
    counts = _by_kind(duplicates)
    sizes = frame.loc[frame["cluster"] != "", "cluster"].value_counts()
    return {
        "policy": policy,
        "finder": finder,
        "n_images": len(frame),
        "n_groups": int(np.unique(groups).size),
        "clusters": {"exact": counts["exact"], "near": counts["near"]},
        "n_clusters": len(sizes),
        "largest_cluster": int(sizes.max()) if len(sizes) else 0,
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
        "n_crossing": len(leaks.pairs) + len(leaks.chains),
        "through_left_out": [{"a": ids[a], "b": ids[b]} for a, b in leaks.chains[:SHOWN_PAIRS]],
        "n_through_left_out": len(leaks.chains),
        "dropped": ids[~keep].tolist(),
    }


def conflicting_labels(frame: pd.DataFrame, duplicates: Sequence[Pair]) -> int:
    """How many pairs of duplicates have two different diagnoses; needs the column label."""
    labels = frame["label"].to_numpy()
    return sum(bool(labels[p.a] and labels[p.b] and labels[p.a] != labels[p.b]) for p in duplicates)


def _by_kind(pairs: Sequence[Pair]) -> dict[str, int]:
    return {kind: sum(pair.kind == kind for pair in pairs) for kind in KINDS}
