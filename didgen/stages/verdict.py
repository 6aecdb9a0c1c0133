"""Compare the arms: does synthetic data help, and how sure is that?"""

import dataclasses
import functools
import json
import logging
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from didgen.captions.measure import image_rows, measure_files
from didgen.metrics.answers import MIN_SEEDS, Hardest, Reach, Rule, p_text
from didgen.metrics.contrasts import Estimate, contrast, difference, sensitivity
from didgen.metrics.significance import (
    cohens_dz,
    cohens_g,
    holm,
    mcnemar_exact,
    paired_t,
    wilcoxon,
)
from didgen.metrics.tallies import Tally, f1_tally, mean_tally, recall_tally
from didgen.runtime.files import write_csv, write_json
from didgen.runtime.outputs import check_output, check_output_file, output_folder, paths_read
from didgen.settings.verdict import Config
from didgen.stages.arm_results import (
    Arms,
    VerdictError,
    clusters_of,
    first_table,
    read_arms,
    read_external,
)

LOGGER = logging.getLogger(__name__)
# Of the rules by which a verdict is reached: 1 chose the best control on validation images.
EDITION = 2
ORIGINAL, DUPLICATES = "original", "duplicates"
METHOD = (
    "multi-reader multi-case t test (Obuchowski and Rockette, degrees of freedom by Hillis): "
    "{readers} are the readers, lesions or patients the cases; two-sided"
)
EXTERNAL_TABLES = {"classification": "predictions.csv", "segmentation": "scores.csv"}
# Groups with fewer test images say too little.
LEAST_OF_GROUP = 30
TONES = {
    "light": ("very light", "light"),
    "intermediate": ("intermediate", "tan"),
    "dark": ("brown", "dark"),
}
# Smaller probabilities count as this one, or a single image would decide the mean log loss.
LEAST_PROBABILITY = 5e-7


@dataclass(frozen=True)
class Task:
    """One task: its arms, what they said of the test images, and when a difference counts.

    values: for each arm (S, N) predicted classes, or scores of segmentation; labels: (N,), only of
    classification; readers: the generator of each seed (S,), where there are several.
    """

    name: str
    metric: str
    rule: Rule
    arms: Arms
    values: dict[str, np.ndarray]
    labels: np.ndarray | None
    clusters: np.ndarray
    readers: np.ndarray | None

    @classmethod
    def of(
        cls, name: str, metric: str, rule: Rule, arms: Arms, readers: np.ndarray | None
    ) -> "Task":
        """The task whose arms have these results."""
        classes = name == "classification"
        column, kind = ("prediction", str) if classes else (metric.lower(), float)
        values = {
            arm: np.stack([table[column].to_numpy(kind) for table in own.tables.values()])
            for arm, own in arms.items()
        }
        labels = first_table(arms)["label"].to_numpy(str) if classes else None
        return cls(name, metric, rule, arms, values, labels, clusters_of(arms), readers)

    @property
    def treatments(self) -> list[str]:
        """The arms with synthetic images beside the real ones."""
        return [arm for arm, own in self.arms.items() if own.treated]

    @property
    def controls(self) -> list[str]:
        """The arms without synthetic images, `original` first."""
        return [arm for arm, own in self.arms.items() if not own.n_synthetic]

    @property
    def ids(self) -> pd.Series:
        """The test images."""
        return first_table(self.arms)["id"]

    def tally(self, arm: str, images: np.ndarray | slice = slice(None)) -> Tally:
        """The metric of an arm on all or some (bool (N,)) of the test images."""
        values = self.values[arm][:, images]
        if self.labels is None:
            tally = mean_tally(values)
        elif self.metric == "accuracy":
            tally = mean_tally(values == self.labels[images])
        else:
            tallies = {"balanced accuracy": recall_tally, "macro F1": f1_tally}
            tally = tallies[self.metric](values, self.labels[images])
        return dataclasses.replace(tally, readers=self.readers)


@dataclass(frozen=True)
class Comparison:
    """An arm against a control, with the secondary tests; no p is corrected yet."""

    arm: str
    control: str
    estimate: Estimate
    sensitivity: dict[str, float]
    other_tests: dict[str, float]
    effect: dict[str, Any]
    per_seed: list[dict[str, Any]]


def run(config: Config) -> None:
    """Write `verdict.json`, the tables and `config.json`.

    The lead claim of each task is `treatment` against `control`, both named before anything is
    measured; Holm's correction is over these. All else is secondary and marked so.
    Raises: `VerdictError` when an arm is missing, or arms were tested on different images or
    trained in different ways.
    """
    check_output(config.tables, "verdict", paths_read(config))
    if Path(os.path.realpath(config.out)).is_relative_to(os.path.realpath(config.tables)):
        raise VerdictError(
            f"out: found {config.out}, which lies in the folder {config.tables} that --tables "
            "names and that is replaced as a whole; expected a file outside it, such as "
            f"{config.tables.parent / 'verdict.json'}"
        )
    check_output_file(config.out, "a verdict", _is_verdict)
    with output_folder(config.tables, "verdict", paths_read(config)) as tables:
        entries = _entries(config)
        for name, table in _tables(entries).items():
            write_csv(tables / name, table)
        write_json(tables / "config.json", json.loads(config.model_dump_json()))
    write_json(config.out, {"run": config.run, "tasks": entries})


def _is_verdict(text: str) -> bool:
    """Whether a text is a verdict's, of any edition."""
    verdict = json.loads(text)
    parts = {"metric", "arms", "comparisons", "sentence"}
    return verdict.keys() == {"run", "tasks"} and all(
        parts <= entry.keys() for entry in verdict["tasks"].values()
    )


def _entries(config: Config) -> dict[str, dict[str, Any]]:
    """What is said of each task."""
    tasks = _tasks(config)
    compare = functools.cache(
        lambda name, arm, control: _compare(tasks[name], arm, control, config)
    )
    leads = {name: compare(name, config.treatment, config.control) for name in tasks}
    corrected = holm({name: lead.estimate.p(config.margin) for name, lead in leads.items()})
    groups = _groups(config, tasks)
    entries = {}
    for name, task in tasks.items():
        families = {
            "control": [(arm, config.control) for arm in _lead_first(task, config)],
            "original": [
                (arm, ORIGINAL)
                for arm in (*_lead_first(task, config), *task.controls)
                if arm != ORIGINAL and ORIGINAL in task.arms
            ],
            "every control": [
                (arm, control) for arm in _lead_first(task, config) for control in task.controls
            ],
        }
        rows = {
            family: [
                _row(task.rule, compare(name, *pair), leads[name], corrected[name], len(leads))
                for pair in pairs
            ]
            for family, pairs in families.items()
        }
        hardest = Hardest.of(
            {c: compare(name, config.treatment, c).estimate for c in task.controls}, task.rule
        )
        entry = _entry(task, rows, hardest, config)
        entry["calibration"] = _calibration(task, config)
        entry["groups"] = _by_group(task, groups, config)
        entry["doses"] = _doses(task, config.confidence)
        entry["external"] = _external(task, config)
        entry["sentence"] = _sentence(entry)
        entries[name] = entry
        LOGGER.info("%s: %s", name, entry["sentence"])
    return entries


def _tasks(config: Config) -> dict[str, Task]:
    tasks = {}
    for name, folder, file, named, metric, delta in (
        ("classification", config.classify, "predictions.csv", config.classify_arms,
         config.classification_metric, config.classification_delta),
        ("segmentation", config.segment, "scores.csv", config.segment_arms,
         config.segmentation_metric, config.segmentation_delta),
    ):  # fmt: skip
        if folder is None:
            continue
        arms = read_arms(folder, file, named, config.seeds)
        _check_named(arms, config)
        readers = None
        if config.generator_seeds > 1:
            trained, order = next(iter(arms.values())).tables, list(config.seeds or ())
            readers = np.array([order.index(seed) % config.generator_seeds for seed in trained])
        rule = Rule(config.confidence, config.margin, delta)
        tasks[name] = Task.of(name, metric, rule, arms, readers)
    if not tasks:
        raise VerdictError("found neither --classify nor --segment, expected at least one of them")
    return tasks


def _check_named(arms: Arms, config: Config) -> None:
    """Raises: `VerdictError` unless treatment and control are there and fit each other."""
    treated = [arm for arm, own in arms.items() if own.treated]
    others = [arm for arm, own in arms.items() if not own.n_synthetic]
    for key, named, allowed in (
        ("treatment", config.treatment, treated), ("control", config.control, others),
    ):  # fmt: skip
        if named not in allowed:
            raise VerdictError(
                f"verdict.{key}: found {named!r}, expected one of the arms "
                f"{'with' if key == 'treatment' else 'without'} synthetic images, {allowed}"
            )
    copies, made = arms[config.control].n_duplicates, arms[config.treatment].n_synthetic
    if copies and copies != made:
        raise VerdictError(
            f"verdict.control: found {copies} copies in {config.control!r}, expected {made}, as "
            f"many as {config.treatment!r} has synthetic images"
        )


def _lead_first(task: Task, config: Config) -> list[str]:
    return sorted(task.treatments, key=lambda arm: arm != config.treatment)


def _compare(task: Task, arm: str, control: str, config: Config) -> Comparison:
    both = task.tally(arm), task.tally(control)
    try:
        estimate = difference(*both, task.clusters)
    except ValueError as error:
        raise VerdictError(f"{task.name}: {error}") from error
    tests, effect, each_p = (_of_classes if task.labels is not None else _of_scores)(
        task, arm, control
    )
    changes = both[0].per_seed - both[1].per_seed
    return Comparison(
        arm, control, estimate,
        sensitivity(*both, task.clusters, config.resamples, config.seed),
        tests, effect,
        [
            {"seed": seed, "difference": float(change), "p": p}
            for seed, change, p in zip(task.arms[arm].tables, changes, each_p, strict=True)
        ],
    )  # fmt: skip


Secondary = tuple[dict[str, float], dict[str, Any], list[float]]


def _of_classes(task: Task, arm: str, control: str) -> Secondary:
    """McNemar's test of the seeds' ensemble, their mean probability, and of each seed."""
    right = []
    for name in (arm, control):
        tables = list(task.arms[name].tables.values())
        columns = [c for c in tables[0].columns if c.startswith("p_")]
        mean = np.mean([table[columns].to_numpy(float) for table in tables], axis=0)
        voted = np.array([c.removeprefix("p_") for c in columns])[mean.argmax(1)]
        right.append(np.concatenate([task.values[name], [voted]]) == task.labels)
    ours, theirs = right
    return (
        {"McNemar exact on the seeds' ensemble": mcnemar_exact(ours[-1], theirs[-1])},
        {"name": "Cohen's g of the ensemble", "value": cohens_g(ours[-1], theirs[-1])},
        [mcnemar_exact(a, b) for a, b in zip(ours[:-1], theirs[:-1], strict=True)],
    )


def _of_scores(task: Task, arm: str, control: str) -> Secondary:
    """Tests of the images' mean scores over seeds, and of each seed."""
    ours, theirs = task.values[arm].mean(0), task.values[control].mean(0)
    _, place, sizes = np.unique(task.clusters, return_inverse=True, return_counts=True)
    means = [np.bincount(place, weights=scores) / sizes for scores in (ours, theirs)]
    return (
        {
            "paired t over images": paired_t(ours, theirs),
            "Wilcoxon over images": wilcoxon(ours, theirs),
        },
        {"name": "Cohen's d_z over lesions", "value": cohens_dz(*means)},
        [paired_t(a, b) for a, b in zip(task.values[arm], task.values[control], strict=True)],
    )


def _row(
    rule: Rule, comparison: Comparison, lead: Comparison, corrected: float, n_leads: int
) -> dict[str, Any]:
    """A comparison as JSON. Only the lead claim's p is corrected, and only it decides."""
    leads = comparison is lead
    own = comparison.estimate
    p = corrected if leads else own.p(rule.margin)
    answer = rule.answer(own, p)
    row: dict[str, Any] = {
        "arm": comparison.arm,
        "control": comparison.control,
        "claim": "lead" if leads else "secondary",
        "verdict": answer,
        "difference": own.value,
        "interval": list(own.interval(rule.confidence)),
        "p": p,
        "p_uncorrected": own.p(rule.margin),
        "n_corrected_for": n_leads if leads else 1,
        "equivalence": {
            "delta": rule.delta,
            "confidence": 1 - 2 * rule.alpha,
            "interval": list(own.interval(1 - 2 * rule.alpha)),
            "p": own.p_equivalent(rule.delta),
        },
        "variance": {
            "of_seeds": float(own.of_seeds.sum()),
            "of_lesions": own.of_lesions,
            "degrees_of_freedom": own.freedom,
        },
        "sensitivity": comparison.sensitivity,
        "other_tests": comparison.other_tests,
        "effect": comparison.effect,
        "per_seed": comparison.per_seed,
        "reach": None,
    }
    if answer == "inconclusive":
        # Of several lead claims, the first step of Holm's correction.
        reach = Reach.of(own, rule.margin, rule.alpha / row["n_corrected_for"])
        row["reach"] = reach and dataclasses.asdict(reach)
    return row


def _entry(
    task: Task, rows: dict[str, list[dict[str, Any]]], hardest: Hardest, config: Config
) -> dict[str, Any]:
    lead = rows["control"][0]
    n_seeds, n_test = task.values[lead["arm"]].shape
    n_generators = 1 if task.readers is None else len(np.unique(task.readers))
    if lead["reach"]:
        # What an estimate counts as trainings are generators, where there are several.
        if n_generators > 1 and lead["reach"]["seeds"]:
            lead["reach"]["generators"] = lead["reach"]["seeds"]
            lead["reach"]["seeds"] *= n_seeds // n_generators
        images = lead["reach"]["lesions"]
        share = n_test / len(np.unique(task.clusters))
        lead["reach"]["images"] = images and math.ceil(images * share)
    return {
        "edition": EDITION,
        "metric": task.metric,
        "arms": {arm: _arm(task, arm) for arm in task.arms},
        "treatment": lead["arm"],
        **lead,
        "beats_every_control": {
            # Stands only beside a lead claim that helps.
            "verdict": lead["verdict"] == "helps" and hardest.p < task.rule.alpha,
            **dataclasses.asdict(hardest),
        },
        "confidence": config.confidence,
        "margin": config.margin,
        "test": METHOD.format(
            readers="training seeds"
            if task.readers is None
            else "generators, by the mean of the seeds that learn from their images,"
        ),
        "n_test": n_test,
        "n_clusters": len(np.unique(task.clusters)),
        "n_seeds": n_seeds,
        "n_generators": n_generators,
        "generalises": _generalises(task, lead["arm"], n_seeds),
        "comparisons": rows,
    }


def _generalises(task: Task, arm: str, n_seeds: int) -> str:
    """What other data and trainings the interval covers."""
    draws = task.arms[arm].draws
    parts = ["other test lesions of the same kind"]
    if n_seeds >= MIN_SEEDS:
        parts.insert(0, "other trainings")
        parts += ["other parts of the synthetic set"] * ("synthetic" in draws)
        parts += ["other real training images"] * ("real" in draws)
    beyond = "another generator or another synthetic set"
    if task.readers is not None:
        parts.insert(1, "other generators trained on the same images")
        beyond = "generators trained on other images"
    return (
        f"Generalises to {', '.join(parts[:-1])}{' and ' if parts[1:] else ''}{parts[-1]}; not to "
        f"{beyond}."
    )


def _arm(task: Task, arm: str) -> dict[str, Any]:
    own, values = task.arms[arm], task.tally(arm).per_seed.tolist()
    return {
        "mean": float(np.mean(values)),
        "sd": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
        "per_seed": values,
        "n_real": own.n_real,
        "n_synthetic": own.n_synthetic,
        "n_duplicates": own.n_duplicates,
        "n_pseudo": own.n_pseudo,
        "synthetic_set": own.synthetic_set,
        "val_score": own.val_score,
    }


def _calibration(task: Task, config: Config) -> list[dict[str, Any]]:
    """NLL and Brier score of the treatment against the control: secondary, lower is better."""
    if task.labels is None:
        return []
    losses: dict[str, dict[str, list[np.ndarray]]] = {"NLL": {}, "Brier score": {}}
    for arm in (config.treatment, config.control):
        for table in task.arms[arm].tables.values():
            columns = [c for c in table.columns if c.startswith("p_")]
            true = task.labels[:, None] == np.array([c.removeprefix("p_") for c in columns])
            chances = table[columns].to_numpy(float)
            least = np.maximum(chances[true], LEAST_PROBABILITY)
            losses["NLL"].setdefault(arm, []).append(-np.log(least))
            losses["Brier score"].setdefault(arm, []).append(((chances - true) ** 2).sum(1))
    rows = []
    for name, scores in losses.items():
        tallies = [
            dataclasses.replace(mean_tally(np.stack(scores[arm])), readers=task.readers)
            for arm in (config.treatment, config.control)
        ]
        estimate = difference(tallies[0], tallies[1], task.clusters)
        # No difference worth having is defined for these: no equivalence.
        rule = Rule(config.confidence, 0.0, 0.0, higher_is_better=False)
        rows.append({
            "metric": name,
            "claim": "secondary",
            "arm": config.treatment,
            "control": config.control,
            "means": [float(tally.per_seed.mean()) for tally in tallies],
            "difference": estimate.value,
            "interval": list(estimate.interval(config.confidence)),
            "p": estimate.p(),
            "verdict": rule.answer(estimate, estimate.p()),
        })  # fmt: skip
    return rows


def _groups(config: Config, tasks: dict[str, Task]) -> pd.DataFrame:
    """What groups each test image belongs to: index id, one column per kind, "" for none.

    Raises: `VerdictError` for a test image that the manifest lacks.
    """
    if config.test is None:
        return pd.DataFrame()
    wanted = set().union(*(task.ids for task in tasks.values()))
    items = [row for row in image_rows(config.test) if row.id in wanted]
    absent = sorted(wanted - {item.id for item in items})
    if absent:
        raise VerdictError(
            f"{config.test}: found no row for {len(absent)} of {len(wanted)} test images "
            f"({', '.join(absent[:5])}), expected the manifest that the arms were tested with"
        )
    tone = {word: name for name, words in TONES.items() for word in words}
    rows = []
    for item, row in zip(items, measure_files(items, config.workers), strict=True):
        marks = row["artifacts"].split("; ")
        rows.append({
            "id": item.id,
            "diagnosis": item.label or "",
            "skin tone": tone.get(row["skin_tone"], ""),
            "lesion size": row["size"],
            "hair": "seen" if row["hair"] != "none" else "",
            "ruler": "seen" if "ruler" in marks else "",
            "ink": "seen" if "ink" in marks else "",
        })  # fmt: skip
    return pd.DataFrame(rows).set_index("id")


def _by_group(task: Task, groups: pd.DataFrame, config: Config) -> dict[str, Any]:
    """The treatment's difference to the control in each group, with simultaneous intervals.

    Bonferroni's correction is over the task's groups of `LEAST_OF_GROUP` images or more; an
    interval below 0 says that the group is harmed.
    """
    if len(groups):
        kinds = groups.loc[task.ids]
    elif task.labels is not None:
        kinds = pd.DataFrame({"diagnosis": task.labels})
    else:
        kinds = pd.DataFrame(index=task.ids)
    members = {
        (kind, value): (kinds[kind] == value).to_numpy()
        for kind in kinds
        for value in sorted(set(kinds[kind]) - {""})
    }
    enough = {
        name: images
        for name, images in members.items()
        if images.sum() >= LEAST_OF_GROUP and len(np.unique(task.clusters[images])) > 1
    }
    confidence = 1 - task.rule.alpha / max(1, len(enough))
    rows = []
    for (kind, value), images in enough.items():
        tallies = [task.tally(arm, images) for arm in (config.treatment, config.control)]
        estimate = difference(tallies[0], tallies[1], task.clusters[images])
        low, high = estimate.interval(confidence)
        sure = estimate.n_seeds >= MIN_SEEDS
        rows.append({
            "kind": kind,
            "group": value,
            "n": int(images.sum()),
            "n_clusters": len(np.unique(task.clusters[images])),
            "treatment": float(tallies[0].per_seed.mean()),
            "control": float(tallies[1].per_seed.mean()),
            "difference": estimate.value,
            "interval": [low, high],
            "verdict": "harmed" if sure and high < 0 else "helped" if sure and low > 0 else "",
        })  # fmt: skip
    return {
        "rows": rows,
        "confidence": confidence,
        "worst": min(rows, key=lambda row: row["difference"], default=None),
        "too_small": [
            {"kind": kind, "group": value, "n": int(images.sum())}
            for (kind, value), images in members.items()
            if (kind, value) not in enough
        ],
    }


def _external(task: Task, config: Config) -> list[dict[str, Any]]:
    """The treatment's difference to the control on each external test set: secondary claims."""
    if config.external is None:
        return []
    rows = []
    path = config.external / EXTERNAL_TABLES[task.name]
    for name, arms in read_external(path, task.arms).items():
        outside = Task.of(task.name, task.metric, task.rule, arms, task.readers)
        try:
            estimate = difference(
                outside.tally(config.treatment), outside.tally(config.control), outside.clusters
            )
        except ValueError as error:
            # One small set more takes nothing from the verdict.
            LOGGER.warning("%s, external set %s: left out: %s", task.name, name, error)
            continue
        rows.append({
            "set": name,
            "n": len(outside.ids),
            "n_clusters": len(np.unique(outside.clusters)),
            "classes": [] if outside.labels is None else sorted(set(outside.labels)),
            "claim": "secondary",
            "arm": config.treatment,
            "control": config.control,
            "arms": {arm: float(outside.tally(arm).per_seed.mean()) for arm in arms},
            "difference": estimate.value,
            "interval": list(estimate.interval(config.confidence)),
            "p": estimate.p(config.margin),
            "verdict": task.rule.answer(estimate, estimate.p(config.margin)),
        })  # fmt: skip
    return rows


def _doses(task: Task, confidence: float) -> list[dict[str, Any]]:
    """What each doubling of the added images changes: the slope on their logarithm, per set.

    Beside it the slope of the duplicates, and the difference of both.
    """
    doses: dict[str, dict[str, float]] = {}
    for arm, own in task.arms.items():
        added = own.n_synthetic or own.n_duplicates
        if added and own.n_real:
            name = own.synthetic_set or DUPLICATES
            doses.setdefault(name, {})[arm] = added / own.n_real
    weights = {}
    for name, by_arm in doses.items():
        doublings = np.log2(list(by_arm.values()))
        if len(set(doublings)) > 1:
            centred = doublings - doublings.mean()
            weights[name] = dict(zip(by_arm, centred / (centred**2).sum(), strict=True))

    def slope(by_arm: dict[str, float]) -> dict[str, Any]:
        trend = contrast([task.tally(arm) for arm in by_arm], list(by_arm.values()), task.clusters)
        interval = list(trend.interval(confidence))
        return {"slope": trend.value, "interval": interval, "p": trend.p()}

    copies = weights.get(DUPLICATES, {})
    return [
        {
            "set": name,
            "doses": doses[name],
            **slope(own),
            "over_duplicates": slope(own | {arm: -weight for arm, weight in copies.items()})
            if copies and name != DUPLICATES
            else None,
        }
        for name, own in sorted(weights.items(), key=lambda item: item[0] == DUPLICATES)
    ]


def _sentence(entry: dict[str, Any]) -> str:
    """The verdict in words with its numbers."""
    low, high = entry["interval"]
    seeds, tests = entry["n_seeds"], entry["n_corrected_for"]
    holm_words = f" (Holm for {tests})" if tests > 1 else ""
    generators = entry["n_generators"]
    of_generators = f" of {generators} generators" if generators > 1 else ""
    text = (
        f"{entry['verdict']}: {entry['metric']} {entry['difference']:+.3f} [{low:.3f}, {high:.3f}] "
        f"over {entry['control']}, {p_text(entry['p'])}{holm_words}, "
        f"n = {seeds} seed{'s' if seeds > 1 else ''}{of_generators}, {entry['n_test']} test images "
        f"of {entry['n_clusters']} lesions"
    )
    delta, reach = entry["equivalence"]["delta"], entry["reach"]
    if entry["verdict"] == "helps":
        hardest = entry["beats_every_control"]
        text += (
            "; better than every control"
            if hardest["verdict"]
            else f"; not shown to beat every control ({hardest['control']}: {p_text(hardest['p'])})"
        )
    if entry["verdict"] in ("helps", "hurts") and max(abs(low), abs(high)) < delta:
        text += f"; less than the {delta:g} that would be worth having"
    if entry["verdict"] == "equivalent":
        level = 100 * entry["equivalence"]["confidence"]
        text += f"; the {level:.0f} % interval lies within \N{PLUS-MINUS SIGN}{delta:g}"
    if seeds < MIN_SEEDS:
        text += "; one seed cannot tell an effect from chance in training"
    if reach:
        text += (
            f"; {reach['power']:.0%} power for {reach['effect']:.3f}, for half of it with "
            f"{_needed(reach)}"
        )
    return text


def _needed(reach: dict[str, Any]) -> str:
    """How many seeds or test images a plan needs, in words."""
    of = f" of {reach['generators']} generators" if "generators" in reach else ""
    ways = [
        f"{reach[key]} {word}"
        for key, word in (("seeds", f"seeds{of}"), ("images", "test images"))
        if reach[key]
    ]
    return " or ".join(ways) or "more seeds and more test images together"


def _tables(entries: dict[str, dict[str, Any]]) -> dict[str, pd.DataFrame]:
    """Arms by seed, comparisons, tests, groups, and arms on external sets; one row each."""
    arms, comparisons, tests, groups, external = [], [], [], [], []
    for task, entry in entries.items():
        arms += [
            {
                "task": task, "metric": entry["metric"], "arm": arm, "seed": own["seed"],
                "value": value, "n_real": numbers["n_real"],
                "n_synthetic": numbers["n_synthetic"],
            }
            for arm, numbers in entry["arms"].items()
            for own, value in zip(entry["per_seed"], numbers["per_seed"], strict=True)
        ]  # fmt: skip
        for family, each in _each_comparison(entry):
            where = {"task": task, "family": family, "arm": each["arm"]}
            where["control"] = each["control"]
            low, high = each["interval"]
            keys = ("claim", "verdict", "difference", "p", "p_uncorrected")
            comparisons.append(
                where
                | {"metric": each.get("metric", entry["metric"])}
                | {key: each.get(key) for key in keys}
                | {"low": low, "high": high}
                | {f"effect_{key}": value for key, value in each.get("effect", {}).items()}
            )
            named = {"deciding": each["p"]} | each.get("sensitivity", {})
            tests += [
                where | {"metric": each.get("metric", entry["metric"]), "test": name, "p": p}
                for name, p in (named | each.get("other_tests", {})).items()
            ]
        for row in entry["groups"]["rows"]:
            low, high = row["interval"]
            kept = {key: value for key, value in row.items() if key != "interval"}
            groups.append({"task": task, **kept, "low": low, "high": high})
        external += [
            {"task": task, "set": row["set"], "n": row["n"], "n_clusters": row["n_clusters"],
             "metric": entry["metric"], "arm": arm, "mean": mean}
            for row in entry["external"]
            for arm, mean in row["arms"].items()
        ]  # fmt: skip
    columns = ("task", "kind", "group", "n", "n_clusters", "treatment", "control", "difference",
               "verdict", "low", "high")  # fmt: skip
    return {
        "arms.csv": pd.DataFrame(arms),
        "comparisons.csv": pd.DataFrame(comparisons),
        "tests.csv": pd.DataFrame(tests),
        "groups.csv": pd.DataFrame(groups, columns=columns),
        "external.csv": pd.DataFrame(
            external, columns=("task", "set", "n", "n_clusters", "metric", "arm", "mean")
        ),
    }


def _each_comparison(entry: dict[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
    for family, rows in entry["comparisons"].items():
        yield from ((family, row) for row in rows)
    yield from (("calibration", row) for row in entry["calibration"])
    yield from ((f"external: {row['set']}", row) for row in entry["external"])
