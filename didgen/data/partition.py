"""Which split each image gets: the one that the source states, or a new one; audited either way."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from didgen.data.duplicates import (
    DuplicateRule,
    Pair,
    cluster_names,
    exact_pairs,
    find_duplicates,
)
from didgen.data.leaks import (
    ACCEPTED,
    Leaks,
    apply_policy,
    find_leaks,
    groups_of,
    in_two_splits,
    leak_table,
)
from didgen.data.manifest import SPLITS, check_identities
from didgen.data.preparation import Prepared
from didgen.data.selection import check_splits
from didgen.data.sources.records import SourceError
from didgen.data.splits import carved_split, grouped_split, recarved_split
from didgen.settings.arms import Task
from didgen.settings.data import LeakPolicy
from didgen.settings.fetch import RequestedSplits

LOGGER = logging.getLogger(__name__)
# Early stopping by fewer validation images of a class than this is chance.
LEAST_OF_CLASS = 20
# A share that is missed by more is worth a warning: some groups are too large, or images too few.
FAR_OFF = 0.05
# Photographs of one lesion are a handful: more images, and this share of all, are worth a warning.
LARGE_CLUSTER = 12
LARGE_SHARE = 0.02


@dataclass(frozen=True)
class SplitRule:
    """What the settings request. tasks: what every split must be able to evaluate."""

    requested: RequestedSplits
    on_leak: LeakPolicy
    val_fraction: float
    test_fraction: float
    seed: int
    tasks: tuple[Task, ...]


@dataclass(frozen=True)
class Basis:
    """The basis of the splits. carve: take val out of train, since the source states none.

    recarve: make val of the labelled images anew, since the stated one has too few of a class.
    """

    used: Literal["grouped", "official"]
    why: str
    carve: bool = False
    recarve: bool = False


@dataclass(frozen=True)
class Partition:
    """The images with their splits: frame, with columns split and cluster; keep: bool (N,), which
    rows stay; leaks: the content of `leaks.json`; summary: the splits' part of `summary.json`.
    """

    frame: pd.DataFrame
    keep: np.ndarray
    leaks: dict[str, Any]
    summary: dict[str, Any]


def choose_basis(frame: pd.DataFrame, rule: SplitRule) -> Basis:
    """Whether the source's splits are kept or new ones are made; said in the log, with the reason.

    auto: the source's, where its images state train and test; new ones where none states a split,
    or all state the same. Columns needed: id, label, split ("" where none is stated).
    Raises: `SourceError` when some images state a split and others do not, or no test is stated.
    """
    requested = rule.requested
    stated = frame["split"].replace("", np.nan).value_counts()
    words = ", ".join(f"{split} {n}" for split, n in stated.items()) or "none"
    if requested == "grouped":
        ignored = f"; the source's own ({words}) are not used" if len(stated) else ""
        basis = Basis("grouped", f"data.splits: grouped{ignored}")
    elif requested == "auto" and (stated.empty or stated.get("train") == len(frame)):
        why = "no image states a split" if stated.empty else "the source states train alone"
        basis = Basis("grouped", f"data.splits: auto, and {why}")
    else:
        _check_stated(frame, requested, words)
        carve = "val" not in stated and {"train", "test"} <= set(stated.index)
        few = "" if carve or "classification" not in rule.tasks else _too_few(frame, rule)
        why = f"data.splits: {requested}, and the source states {words}{few and '; '}{few}"
        basis = Basis("official", why, carve, bool(few))
    how = {"grouped": "new ones, by patient, lesion and look", "official": "the source's own"}
    LOGGER.info("splits: %s (%s)", how[basis.used], basis.why)
    if basis.carve:
        LOGGER.info("splits: the source has no val; it is taken out of train, by group")
    if basis.recarve:
        LOGGER.warning(
            "splits: the images with a diagnosis get another val, taken out of the source's train "
            "and val by group; its test stays"
        )
    return basis


def _too_few(frame: pd.DataFrame, rule: SplitRule) -> str:
    """Which class is too rare in the stated val, in words; "" where another would be no better.

    Better is what has more images of classes that lack some; beyond enough, no more are counted.
    """
    labelled = frame[(frame["label"] != "") & (frame["split"] != "test")]
    counts = pd.crosstab(labelled["label"], labelled["split"]).reindex(columns=["train", "val"])
    counts = counts.fillna(0).astype(int)
    share = (rule.val_fraction * counts.sum(axis=1)).astype(int)
    if share.clip(upper=LEAST_OF_CLASS).sum() <= counts["val"].clip(upper=LEAST_OF_CLASS).sum():
        return ""
    found = counts["val"]
    return f"its val has {found.min()} of {found.idxmin()}, expected {LEAST_OF_CLASS} of each class"


def _check_stated(frame: pd.DataFrame, requested: RequestedSplits, words: str) -> None:
    """Refuse splits that are stated in part: which images to test on must not be guessed."""
    ids = frame.loc[frame["split"] == "", "id"].tolist()
    if ids:
        more = ", ..." if len(ids) > 5 else ""
        raise SourceError(
            f"splits: {requested}, but {len(ids)} of {len(frame)} images have no split "
            f"({', '.join(ids[:5])}{more}); the others state {words}; fill the split column or use "
            "data.splits: grouped, which makes new splits of all"
        )
    if requested == "auto" and "test" not in set(frame["split"]):
        raise SourceError(
            f"splits: auto, but of {len(frame)} images none is for test (stated: {words}); name "
            "test images, or use data.splits: grouped, which makes new splits of all"
        )


def assign(frame: pd.DataFrame, groups: np.ndarray, basis: Basis, rule: SplitRule) -> np.ndarray:
    """The split of each image. Columns needed: label, split. Shapes: (N,). Raises: `SplitError`."""
    strata = frame["label"].replace("", "mask only").tolist()
    if basis.used == "grouped":
        return grouped_split(strata, groups, rule.val_fraction, rule.test_fraction, rule.seed)
    stated = frame["split"].to_numpy(object)
    if basis.carve:
        return carved_split(stated, strata, groups, rule.val_fraction, rule.seed)
    if basis.recarve:
        labelled = (frame["label"] != "").to_numpy()
        return recarved_split(stated, labelled, strata, groups, rule.val_fraction, rule.seed)
    return stated


def check_before_pixels(
    kept: pd.DataFrame, everyone: pd.DataFrame, rule: SplitRule, where: str
) -> Basis:
    """Check what needs no pixels, before hours are spent on them; return the basis of the splits.

    `everyone`: the identities of all records, of which `kept` are the first. Raises: `SourceError`,
    `SplitError`, `LeakError`, `ManifestError`.
    """
    basis = choose_basis(kept, rule)
    groups = groups_of(everyone.assign(cluster=""))[: len(kept)]
    frame = kept.assign(split=assign(kept, groups, basis, rule))
    check_identities(frame, where)
    remedy = "add images of other patients or raise the fractions"
    if basis.used == "official":
        remedy = "correct the source's splits or use data.splits: grouped"
        if rule.on_leak == "error":
            apply_policy(frame, find_leaks(frame, [], groups), "error", groups)
    check_splits(frame, remedy, rule.tasks)
    return basis


def duplicates_of(prepared: Sequence[Prepared]) -> tuple[list[Pair], str]:
    """The duplicates among images, numbered as they stand, and how they were found, in words.

    Near-duplicates too where all images have a fingerprint, else exact copies alone.
    """
    rule = DuplicateRule()
    prints = [item.fingerprint for item in prepared if item.fingerprint]
    if len(prints) == len(prepared):
        pairs, finder = find_duplicates(prints, rule), rule.sentence()
    else:
        pairs, finder = exact_pairs([item.digest for item in prepared]), "Identical pixels."
    near = sum(pair.kind == "near" for pair in pairs)
    LOGGER.info("duplicates: %d exact, %d near; %s", len(pairs) - near, near, finder)
    return pairs, finder


def partition(
    frame: pd.DataFrame,
    everyone: pd.DataFrame,
    pairs: Sequence[Pair],
    basis: Basis,
    rule: SplitRule,
    finder: str,
) -> Partition:
    """Relate all images, then split those of `frame`, or audit the splits that they have.

    `everyone`: the identities of all records, of which the rows of `frame` are the first; the
    duplicates `pairs` number its rows. So two images stay together that only a third one relates,
    even where a limit leaves the third one out. Raises: `LeakError`, `SplitError`.
    """
    n = len(frame)
    clusters = cluster_names(pairs, everyone["id"].tolist())
    _warn_of_large_cluster(clusters, everyone["id"].tolist(), pairs)
    groups = groups_of(everyone.assign(cluster=clusters))[:n]
    own = pd.Series(clusters[:n], index=frame.index)
    frame = frame.assign(cluster=own.where(own.duplicated(keep=False), ""))
    among = [pair for pair in pairs if pair.b < n]
    stated = frame["split"]
    frame["split"] = assign(frame, groups, basis, rule)
    keep, leaks = np.ones(n, bool), Leaks([], [])
    policy: LeakPolicy | Literal["grouped"] = "grouped"
    if basis.used == "official":
        policy = rule.on_leak
        leaks = find_leaks(frame, among, groups)
        keep = apply_policy(frame, leaks, rule.on_leak, groups)
        if rule.on_leak == "warn" and leaks:
            split = frame["split"].to_numpy()
            frame["leak"] = np.where(in_two_splits(split, groups), ACCEPTED, "")
    check_splits(
        frame[keep],
        "too many related images: use another source or data.splits: grouped",
        rule.tasks,
    )
    if "classification" in rule.tasks:
        _warn_of_absent_classes(frame[keep])
    table = leak_table(frame, among, leaks, keep, groups, policy, finder)
    told = _summary(frame[keep].assign(stated=stated[keep]), basis, rule)
    return Partition(frame, keep, table, told)


def _warn_of_large_cluster(
    clusters: Sequence[str], ids: Sequence[str], pairs: Sequence[Pair]
) -> None:
    """Warn of look-alikes that are too many for one lesion: they would all go to one split."""
    sizes = pd.Series(clusters)[lambda names: names != ""].value_counts()
    if sizes.empty or sizes.iloc[0] < max(LARGE_CLUSTER, LARGE_SHARE * len(ids)):
        return
    if not any(pair.kind == "near" and clusters[pair.a] == sizes.index[0] for pair in pairs):
        return
    shown = [name for name, cluster in zip(ids, clusters, strict=True) if cluster == sizes.index[0]]
    LOGGER.warning(
        "duplicates: %d of %d images look alike, directly or through others (%s, ...), and stay in "
        "one split; if they show different lesions, all have something else in common, such as a "
        "ruler, a logo or a frame: cut it away, or set data.near_duplicates: false",
        sizes.iloc[0], len(ids), ", ".join(shown[:5]),
    )  # fmt: skip


def _warn_of_absent_classes(frame: pd.DataFrame) -> None:
    """Warn of diagnoses that a split lacks. Columns needed: label, split."""
    for code, rows in frame[frame["label"] != ""].groupby("label"):
        absent = [split for split in SPLITS if not (rows["split"] == split).any()]
        if absent:
            LOGGER.warning(
                "class %s: none of its %d images is in %s, so it is not learnt or tested there; "
                "add images of other lesions, or leave the class out of data.classes",
                code, len(rows), " or ".join(absent),
            )  # fmt: skip


def _summary(frame: pd.DataFrame, basis: Basis, rule: SplitRule) -> dict[str, Any]:
    """Requested and used splits, why, and the share of the images that each got and should get.

    Columns needed: label, split, stated.
    """
    split, labelled = frame["split"], frame["label"] != ""
    requested: dict[str, float | None] = dict.fromkeys(SPLITS)
    if basis.used == "grouped":
        requested["val"], requested["test"] = rule.val_fraction, rule.test_fraction
        requested["train"] = round(1 - rule.val_fraction - rule.test_fraction, 6)
    counts = split.value_counts()
    shares = {name: round(counts.get(name, 0) / len(split), 4) for name in SPLITS}
    whole = ""
    if basis.carve or basis.recarve:
        # Of what was shared out between the two, not of all images.
        whole = " of train and val" + (" with a diagnosis" if basis.recarve else "")
        own = split[(split != "test") & (labelled | basis.carve)]
        shares |= {name: round(float((own == name).mean()), 4) for name in ("train", "val")}
        requested |= {"val": rule.val_fraction, "train": round(1 - rule.val_fraction, 6)}
    for name, wanted in requested.items():
        if wanted is None:
            continue
        far = abs(shares[name] - wanted) > FAR_OFF
        LOGGER.log(
            logging.WARNING if far else logging.INFO,
            "%s: %.1f %% of the images%s, requested: %.1f %%%s",
            name, 100 * shares[name], whole, 100 * wanted,
            "; related images are kept together, and images are few" if far else "",
        )  # fmt: skip
    return {
        "requested": rule.requested,
        "used": basis.used,
        "why": basis.why,
        "val_from_train": basis.carve or basis.recarve,
        # Where the labelled images of the source's val are now.
        "stated_val": split[labelled & (frame["stated"] == "val")].value_counts().to_dict()
        if basis.recarve
        else None,
        "shares": {name: {"requested": requested[name], "actual": shares[name]} for name in SPLITS},
    }
