"""The arms' result tables, read back and matched: every arm and seed on the same test images."""

import logging
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from didgen.data.leaks import groups_of
from didgen.runtime.files import read_csv, read_object

LOGGER = logging.getLogger(__name__)
NEEDED = ("n_train", "n_synthetic", "training")
COUNTS = ("n_train", "n_synthetic", "n_duplicates", "n_pseudo", "n_real")
# What all trainings must share, or a difference between arms may come from it; of the last two,
# each part by itself.
ALIKE = ("n_real", "n_val", "classes", "images_seen_at", "model", "settings")
AGAIN = "run external_test again"
IDENTITY = ("id", "lesion_id", "patient_id", "cluster", "label")


class VerdictError(ValueError):
    """Results that cannot be compared; the message says which and what to do."""


@dataclass(frozen=True)
class ArmResults:
    """One arm: its result table and its metrics for each seed, seeds in rising order."""

    name: str
    tables: dict[int, pd.DataFrame]
    metrics: dict[int, dict[str, Any]]

    @property
    def n_synthetic(self) -> int:
        """Synthetic training images: the mean over seeds, whose generators may differ."""
        return self._mean("n_synthetic")

    @property
    def alone(self) -> bool:
        """Whether all training images are synthetic: shown, and compared with no other arm."""
        return self.n_synthetic > 0 and self.n_real == 0

    @property
    def treated(self) -> bool:
        """Whether synthetic images were added to real ones: what the verdict is about."""
        return self.n_synthetic > 0 and not self.alone

    @property
    def n_duplicates(self) -> int:
        """Copies of real training images: the mean over seeds."""
        return self._mean("n_duplicates")

    @property
    def n_pseudo(self) -> int:
        """Real training images that a first network labelled."""
        return int(self._first.get("n_pseudo", 0))

    @property
    def n_real(self) -> int:
        """Different real training images, with labels of their own."""
        others = self.n_synthetic + self.n_duplicates
        return int(self._first.get("n_real", self._first["n_train"] - others))

    @property
    def synthetic_set(self) -> str:
        """The name of the synthetic set, whose ratios belong together; "" without one."""
        return str(self._first.get("synthetic_set") or (self.name if self.n_synthetic else ""))

    @property
    def draws(self) -> tuple[str, ...]:
        """Of what each seed takes a part of its own: "synthetic", "real", both or neither."""
        available = self._first.get("n_available", {})
        used = {"synthetic": self.n_synthetic, "real": self.n_real}
        return tuple(kind for kind, n in used.items() if 0 < n < available.get(kind, n))

    @property
    def val_score(self) -> float:
        """Mean over seeds of the score of the best evaluation on the validation images."""
        scores = [float(own["training"]["best_score"]) for own in self.metrics.values()]
        return sum(scores) / len(scores)

    def _mean(self, count: str) -> int:
        counts = [int(own.get(count, 0)) for own in self.metrics.values()]
        return round(sum(counts) / len(counts))

    @property
    def _first(self) -> dict[str, Any]:
        return next(iter(self.metrics.values()))


Arms = dict[str, ArmResults]


def read_arms(
    folder: Path,
    name: str,
    arms: tuple[str, ...] | None = None,
    seeds: tuple[int, ...] | None = None,
) -> Arms:
    """The results of arms and seeds below `folder`, matched.

    Raises: `VerdictError` when a named arm, a synthetic one or a control is absent, or when arms
    have other seeds, other test images, or networks that were built or trained in another way.
    """
    results = read_tables(folder, name, arms, seeds)
    absent = sorted(set(arms or ()) - set(results))
    if absent:
        raise VerdictError(
            f"{folder}: found arms {list(results)}, expected also {absent} with a {name} below "
            "<arm>/seed<number>; train them first"
        )
    treated = [arm for arm, own in results.items() if own.treated]
    if not treated or all(own.n_synthetic for own in results.values()):
        raise VerdictError(
            f"{folder}: found arms {list(results)}, of which {treated} add synthetic images; "
            f"expected one that does and at least one without any, each with a {name} below "
            "<arm>/seed<number>; train them first"
        )
    _check_matched(results, f"{folder}, {name}", "train the arms again")
    _check_alike(folder, results)
    return results


def read_tables(
    folder: Path,
    name: str,
    arms: tuple[str, ...] | None = None,
    seeds: tuple[int, ...] | None = None,
) -> Arms:
    """The table `name` and metrics.json of arms and seeds below `folder`, rows in the same order.

    Folders of other arms and seeds than those named, left by an earlier run, are passed over.
    """
    results: Arms = {}
    for path in sorted(folder.glob(f"*/seed*/{name}")):
        arm, match = path.parent.parent.name, re.fullmatch(r"seed(0|[1-9]\d*)", path.parent.name)
        if match is None or (arms is not None and arm not in arms):
            continue
        seed = int(match[1])
        if seeds is None or seed in seeds:
            own = results.setdefault(arm, ArmResults(arm, {}, {}))
            own.tables[seed], own.metrics[seed] = _table(path), _metrics(path)
    # File names sort seed10 before seed2.
    return {
        arm: ArmResults(arm, dict(sorted(own.tables.items())), dict(sorted(own.metrics.items())))
        for arm, own in sorted(results.items(), key=lambda item: (item[0] != "original", item[0]))
    }


def first_table(arms: Arms) -> pd.DataFrame:
    """The table of the first arm and seed: the test images are the same in all."""
    return next(iter(next(iter(arms.values())).tables.values()))


def clusters_of(arms: Arms) -> np.ndarray:
    """What counts as independent among the test images, as numbers (N,)."""
    return groups_of(first_table(arms))


def read_external(path: Path, arms: Arms) -> dict[str, Arms]:
    """What the networks of `arms` said of each external test set, matched.

    Raises: `VerdictError` when the table lacks an arm or a seed, or the images of one.
    """
    table = _table(path, "external_test", ("set", "arm", "seed"))
    results: dict[str, Arms] = {}
    for name, rows in table.groupby("set"):
        of_arm = {arm: dict(list(own.groupby("seed"))) for arm, own in rows.groupby("arm")}
        results[str(name)] = own = {}
        for arm, inside in arms.items():
            absent = [seed for seed in inside.tables if str(seed) not in of_arm.get(arm, {})]
            if absent:
                raise VerdictError(
                    f"{path}: found no rows of set {name} by arm {arm}, seeds {absent}, expected "
                    f"those of every network that is compared; {AGAIN}"
                )
            tables = {s: of_arm[arm][str(s)].reset_index(drop=True) for s in inside.tables}
            own[arm] = ArmResults(arm, tables, inside.metrics)
        _check_matched(own, f"{path}, set {name}", AGAIN)
    return results


def _table(path: Path, stage: str | None = None, of_each: tuple[str, ...] = ()) -> pd.DataFrame:
    """An arm's table, sorted by id: probabilities and scores as numbers, all else as text."""
    classified = path.name == "predictions.csv"
    stage = stage or ("classify" if classified else "segment")
    columns = ("label", "prediction") if classified else ("dice", "iou")
    table = read_csv(path, stage, ("id", *of_each, *columns), of_each)
    if of_each and table.empty:
        return table
    remedy = AGAIN if of_each else "train the arm again"
    numbers = [name for name in table if name.startswith("p_")] if classified else ["dice", "iou"]
    table[numbers] = table[numbers].apply(pd.to_numeric, errors="coerce")
    unfit = table.loc[~table[numbers].apply(lambda own: own.between(0, 1)).all(axis=1), "id"]
    if len(unfit):
        raise VerdictError(
            f"{path}: {len(unfit)} rows ({', '.join(unfit[:5])}) whose {', '.join(numbers)} are "
            f"not all numbers from 0 to 1; {remedy}"
        )
    codes = {name.removeprefix("p_") for name in numbers}
    named = {*table["label"], *table["prediction"]} if classified else set()
    if odd := sorted(named - codes):
        raise VerdictError(
            f"{path}: found classes {odd}, expected those with a column p_, {sorted(codes)}; "
            f"{remedy}"
        )
    if classified:
        predicted = pd.Index(numbers).get_indexer("p_" + table["prediction"])
        stated = table[numbers].to_numpy()[np.arange(len(table)), predicted]
        # Ties, and rounding in the file.
        unlike = table.loc[table[numbers].max(axis=1) > stated + 1e-5, "id"]
        if len(unlike):
            raise VerdictError(
                f"{path}: {len(unlike)} rows ({', '.join(unlike[:5])}) whose prediction is not the "
                f"class of the highest probability; {remedy}"
            )
    return table.sort_values("id", ignore_index=True)


def _metrics(table: Path) -> dict[str, Any]:
    path = table.with_name("metrics.json")
    if not path.is_file():
        raise VerdictError(f"{path}: no such file, expected it beside {table.name}; train anew")
    metrics = read_object(path)
    absent = [key for key in NEEDED if key not in metrics]
    training = metrics.get("training")
    if absent or not isinstance(training, dict) or "best_score" not in training:
        raise VerdictError(
            f"{path}: found no {', '.join(absent) or 'best_score under training'}, expected what "
            "the classify and segment stages write; train anew"
        )
    available, score = metrics.get("n_available", {}), training["best_score"]
    counts = {key: metrics[key] for key in COUNTS if key in metrics}
    counts |= available if isinstance(available, dict) else {"n_available": available}
    unfit = {key: n for key, n in counts.items() if type(n) is not int or n < 0}
    if type(score) not in (int, float) or not math.isfinite(score):
        unfit["best_score"] = score
    if unfit:
        raise VerdictError(
            f"{path}: found {unfit}, expected whole numbers from 0 on and a finite score; train "
            "anew"
        )
    return metrics


def _check_matched(results: Arms, place: str, remedy: str) -> None:
    """Refuse tables of other seeds, columns or images than those of the first arm."""
    seeds = {arm: list(own.tables) for arm, own in results.items()}
    if len({tuple(each) for each in seeds.values()}) > 1:
        raise VerdictError(f"found seeds {seeds}, expected the same in every arm; {remedy}")
    first = first_table(results)
    same = [column for column in IDENTITY if column in first]
    classes = [column for column in first if column.startswith("p_")]
    for arm, own in results.items():
        for seed, table in own.tables.items():
            where = f"{place}, {arm}/seed{seed}"
            if (columns := [name for name in table if name.startswith("p_")]) != classes:
                raise VerdictError(
                    f"{where}: found columns {columns}, expected {classes} as in "
                    f"{next(iter(results))}; {remedy}"
                )
            if not table[same].equals(first[same]):
                raise VerdictError(
                    f"{where}: other test images than in {next(iter(results))}, expected the same "
                    f"ids, lesions, patients and labels; {remedy}"
                )


def _check_alike(folder: Path, results: Arms) -> None:
    """Refuse trainings that differ in more than arm and seed, such as in weights out of reach."""
    trainings = {f"{a}/seed{s}": m for a, own in results.items() for s, m in own.metrics.items()}
    alone = {f"{a}/seed{s}" for a, own in results.items() for s in own.metrics if own.alone}
    leader = next(name for name in trainings if name not in alone)
    expected = _conditions(trainings[leader])
    odd = {}
    for name, metrics in trainings.items():
        own = _conditions(metrics)
        if name in alone:
            # That it has no real images is what it is.
            own["n_real"] = expected["n_real"]
        differing = [k for k in {**expected, **own} if own.get(k) != expected.get(k)]
        if differing:
            odd[name] = {key: own.get(key) for key in differing}
    if odd:
        first = next(iter(odd))
        words = "; ".join(
            f"{key}: found {value!r}, expected {expected.get(key)!r}"
            for key, value in odd[first].items()
        )
        raise VerdictError(
            f"{folder}: {len(odd)} of {len(trainings)} trainings differ from {leader} in more than "
            f"arm and seed, the first is {first} ({words}); delete their folders and train them "
            "again with the same settings and weights"
        )
    kinds = sorted({str(m["training"].get("precision", "")) for m in trainings.values()})
    if len(kinds) > 1:
        LOGGER.warning("%s: trained in %s: set `precision` to have one for all", folder, kinds)


def _conditions(metrics: dict[str, Any]) -> dict[str, Any]:
    """What a training must share with all others, by name."""
    conditions = {}
    for key in ALIKE:
        value = metrics.get(key)
        if isinstance(value, dict):
            conditions |= {f"{key}.{part}": own for part, own in value.items()}
        else:
            conditions[key] = value
    return conditions
