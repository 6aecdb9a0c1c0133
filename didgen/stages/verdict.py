"""Compare the arms: does synthetic data help, and how sure is that?"""

import functools
import json
import logging
from typing import TYPE_CHECKING, Any

from didgen.settings.verdict import Config

if TYPE_CHECKING:
    from didgen.stages.comparing import Comparison, Task

LOGGER = logging.getLogger(__name__)
ORIGINAL = "original"
# Each is corrected for its own number of comparisons, over both tasks; the first one decides.
FAMILIES = ("best control", "original", "every control")


def run(config: Config) -> None:
    """Write `verdict.json`, the tables and `config.json`.

    The best control is the one with the best mean score on the validation images, so that its
    choice owes nothing to the test images. Raises: `VerdictError` when an arm is missing, or arms
    were tested on different images or trained in different ways.
    """
    from didgen.runtime.files import write_csv, write_json
    from didgen.runtime.outputs import check_output_file, output_folder, paths_read

    check_output_file(config.out, {"run", "tasks"})
    with output_folder(config.tables, "verdict", paths_read(config)) as tables:
        entries = _entries(config)
        for name, table in _tables(entries).items():
            write_csv(tables / name, table)
        write_json(tables / "config.json", json.loads(config.model_dump_json()))
    write_json(config.out, {"run": config.run, "tasks": entries})


def _entries(config: Config) -> dict[str, dict[str, Any]]:
    """What is said of each task."""
    from didgen.stages.comparing import compare

    tasks = _tasks(config)
    # A pair of arms may stand in several families.
    known = functools.cache(
        lambda task, arm, control: compare(
            tasks[task], arm, control, config.confidence, config.resamples, config.seed
        )
    )
    families = {
        family: [
            known(t, *pair) for t, task in tasks.items() for pair in _pairs(task, family, config)
        ]
        for family in FAMILIES
    }
    corrected = {family: _correct(found) for family, found in families.items()}
    entries = {}
    for name, task in tasks.items():
        told = {
            family: [
                _told(each, corrected[family][k], len(found), config)
                for k, each in enumerate(found)
                if each.task == name
            ]
            for family, found in families.items()
        }
        entries[name] = _entry(task, told, config)
        LOGGER.info("%s: %s", name, entries[name]["sentence"])
    return entries


def _tasks(config: Config) -> dict[str, "Task"]:
    from didgen.stages.arm_results import VerdictError, read_arms
    from didgen.stages.comparing import classification, segmentation

    tasks = {}
    for name, folder, file, named in (
        ("classification", config.classify, "predictions.csv", config.classify_arms),
        ("segmentation", config.segment, "scores.csv", config.segment_arms),
    ):
        if folder is None:
            continue
        arms = read_arms(folder, file, named, config.seeds)
        if not (config.treatment in arms and arms[config.treatment].n_synthetic):
            raise VerdictError(
                f"verdict.treatment: found {config.treatment!r}, expected one of the arms with "
                f"synthetic images, {[a for a, own in arms.items() if own.n_synthetic]}"
            )
        if name == "classification":
            tasks[name] = classification(arms, config.classification_metric)
        else:
            tasks[name] = segmentation(arms, config.segmentation_metric)
    if not tasks:
        raise VerdictError("found neither --classify nor --segment, expected at least one of them")
    return tasks


def _pairs(task: "Task", family: str, config: Config) -> list[tuple[str, str]]:
    """The comparisons (arm, control) of a family, the leading arm first."""
    treated = sorted(task.treatments, key=lambda arm: arm != config.treatment)
    if family == "best control":
        return [(arm, task.best_control) for arm in treated]
    if family == "original":
        if ORIGINAL not in task.arms:
            return []
        return [(a, ORIGINAL) for a in (*treated, *task.controls) if a != ORIGINAL]
    return [(arm, control) for arm in treated for control in task.controls]


def _correct(found: list["Comparison"]) -> list[float]:
    """Holm's correction over a family, in its order."""
    from didgen.metrics.significance import holm

    return list(holm({str(k): each.p for k, each in enumerate(found)}).values())


def _told(found: "Comparison", p: float, n_tests: int, config: Config) -> dict[str, Any]:
    from didgen.metrics.statistics import decide

    low, high = found.interval.low, found.interval.high
    n_seeds = len(found.per_seed)
    return {
        "arm": found.arm,
        "control": found.control,
        "difference": found.interval.difference,
        "interval": [low, high],
        "p": p,
        "p_uncorrected": found.p,
        "n_corrected_for": n_tests,
        "effect": {"name": found.effect_name, "value": found.effect},
        "other_tests": found.tests,
        "per_seed": found.per_seed,
        "verdict": decide(found.interval, p, n_seeds, 1 - config.confidence, config.margin),
    }


def _entry(task: "Task", told: dict[str, list[dict[str, Any]]], config: Config) -> dict[str, Any]:
    import numpy as np

    from didgen.metrics.statistics import Interval, sentence

    lead = told["best control"][0]
    interval = Interval(lead["difference"], *lead["interval"], config.confidence)
    n_seeds, n_test = task.tallies[lead["arm"]].numerators.shape[:2]
    control = f"the best control ({lead['control']})"
    others = [control for control in task.controls if control != ORIGINAL]
    if lead["control"] == ORIGINAL and not others:
        control = ORIGINAL
    return {
        "metric": task.metric,
        "arms": {arm: _arm(task, arm) for arm in task.arms},
        "treatment": lead["arm"],
        "best_control": lead["control"],
        "best_control_by": "mean validation score over the seeds",
        **{key: lead[key] for key in ("difference", "interval", "p", "p_uncorrected", "verdict")},
        "effect": lead["effect"],
        "confidence": config.confidence,
        "margin": config.margin,
        "test": "the largest p of a sign-flip randomization test over patients or lesions, of the "
        "bootstrap over lesions and seeds and of Student's t over seeds, two-sided, "
        f"Holm-corrected for {lead['n_corrected_for']}",
        "other_tests": lead["other_tests"],
        "n_test": n_test,
        "n_clusters": len(np.unique(task.clusters)),
        "n_seeds": n_seeds,
        "comparisons": told,
        "sentence": sentence(
            lead["verdict"], task.metric, interval, control, lead["p"], n_seeds, n_test,
            1 - config.confidence,
        ),
    }  # fmt: skip


def _arm(task: "Task", arm: str) -> dict[str, Any]:
    import numpy as np

    own, values = task.arms[arm], task.tallies[arm].per_seed.tolist()
    return {
        "mean": float(np.mean(values)),
        "sd": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
        "per_seed": values,
        "n_real": own.n_real,
        "n_synthetic": own.n_synthetic,
        "n_duplicates": own.n_duplicates,
        "synthetic_set": own.synthetic_set,
        "val_score": own.val_score,
    }


def _tables(entries: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """One row an arm and seed, one a comparison, and one a test."""
    import pandas as pd

    arms, comparisons, tests = [], [], []
    for task, entry in entries.items():
        seeds = range(entry["n_seeds"])
        arms += [
            {
                "task": task, "metric": entry["metric"], "arm": arm,
                "seed": entry["comparisons"]["best control"][0]["per_seed"][k]["seed"],
                "value": own["per_seed"][k], "n_real": own["n_real"],
                "n_synthetic": own["n_synthetic"],
            }
            for arm, own in entry["arms"].items()
            for k in seeds
        ]  # fmt: skip
        for family, told in entry["comparisons"].items():
            for each in told:
                where = {"task": task, "family": family, "arm": each["arm"]}
                where["control"] = each["control"]
                keys = ("difference", "p", "p_uncorrected", "verdict")
                comparisons.append(
                    where
                    | {key: each[key] for key in keys}
                    | dict(zip(("low", "high"), each["interval"], strict=True))
                    | {"effect": each["effect"]["value"], "effect_name": each["effect"]["name"]}
                )
                found = {"deciding": each["p_uncorrected"], "deciding, Holm": each["p"]}
                tests += [
                    where | {"test": name, "p": p}
                    for name, p in (found | each["other_tests"]).items()
                ]
    named = {"arms.csv": arms, "comparisons.csv": comparisons, "tests.csv": tests}
    return {name: pd.DataFrame(rows) for name, rows in named.items()}
