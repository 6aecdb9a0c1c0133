"""Results: every measure of every arm over the seeds, recall of each class, confusions."""

import re
from pathlib import Path
from typing import Any

from didgen.data.classes import CLASSES
from didgen.report.numbers import digits, plural
from didgen.report.page import Options, Section
from didgen.report.reading import Trial, broken, json_file, trials
from didgen.report.sections.verdict import over_original
from didgen.report.tables import Table, arms_table, confusion_table, measures_table

TASKS = (("classification", "classify"), ("segmentation", "segment"))


def section(run_dir: Path, options: Options) -> Section:
    """Read every metrics.json below classify/ and segment/."""
    path = run_dir / "verdict.json"
    verdict = json_file(path) or {}
    missing, entries = [], []
    for task, folder in TASKS:
        arms = trials(run_dir, folder)
        done = [trial for trial in arms if trial.metrics is not None]
        missing.extend(
            f"{task.capitalize()}, arm {trial.arm}, seed {trial.seed}: no metrics.json."
            for trial in arms
            if trial.metrics is None
        )
        if not done:
            missing.append(f"No model was tested on {task} in this run.")
            continue
        decided = (verdict.get("tasks") or {}).get(task) or {}
        entries.append(_task(task, done, decided, path))
    content = {"tasks": entries} if entries else None
    return Section("results", "Results", content, tuple(missing))


def _task(task: str, done: list[Trial], decided: dict[str, Any], path: Path) -> dict[str, Any]:
    arms = list(dict.fromkeys(trial.arm for trial in done))
    measures: dict[str, dict[str, list[float]]] = {}
    per_class: dict[str, dict[str, dict[str, list[float]]]] = {}
    for trial in done:
        test = _test(trial)
        for key, value in _overall(test).items():
            measures.setdefault(key, {}).setdefault(trial.arm, []).append(value)
        for code, numbers in test.get("per_class", {}).items():
            for key, value in _numbers(numbers).items():
                rows = per_class.setdefault(_words(key), {}).setdefault(_class_name(code), {})
                rows.setdefault(trial.arm, []).append(value)
    metric = set(str(decided.get("metric", "")).lower().split())
    # "macro F1" decides in the row "F1, macro".
    leading = next(
        (name for name in measures if set(re.findall(r"[\w-]+", name.lower())) == metric), ""
    )
    by_class = {
        name: arms_table(f"{name[0].upper()}{name[1:]} of each class", "class", rows, arms)
        for name, rows in per_class.items()
    }
    caption = f"{task.capitalize()} on the test split"
    note = ". ".join(filter(None, (_decision(decided), _averaging(_test(done[0])))))
    if len(arms) > 2:
        lead = [str(decided.get("treatment", ""))]
        level = f"{100 * decided.get('confidence', 0.95):g}"
        compared = over_original(
            path, str(decided.get("metric", "")), decided.get("comparisons"), level
        )
        first = measures_table(caption, measures, arms, lead, note, compared)
    else:
        first = arms_table(caption, "measure", measures, arms, leading, note)
    seeds = {arm: [trial.seed for trial in done if trial.arm == arm] for arm in arms}
    return {
        "name": task,
        "arms": arms,
        "seeds": seeds,
        "models": list(dict.fromkeys(filter(None, map(_model, done)))),
        "tables": [first, *(by_class.pop(name) for name in ("recall",) if name in by_class)],
        "details": list(by_class.values()),
        "confusions": _confusions(done, arms),
        "single": all(len(own) == 1 for own in seeds.values()),
    }


def _test(trial: Trial) -> dict[str, Any]:
    """The part of metrics.json that was measured on the test split."""
    test = (trial.metrics or {}).get("test")
    path = trial.folder / "metrics.json"
    if not isinstance(test, dict):
        raise broken(path, f"{test!r} under 'test'", "an object of measures")
    per_class = test.get("per_class", {})
    if not isinstance(per_class, dict) or not all(isinstance(n, dict) for n in per_class.values()):
        raise broken(path, "something else under 'per_class'", "an object of measures a class")
    return test


def _overall(test: dict[str, Any]) -> dict[str, float]:
    """The measures over all images by name; of averages, as "F1, macro"."""
    measures = {_words(key): value for key, value in _numbers(test).items()}
    for average in ("micro", "macro", "weighted"):
        numbers = test.get(average)
        if isinstance(numbers, dict):
            measures |= {f"{_words(k)}, {average}": v for k, v in _numbers(numbers).items()}
    return measures


def _numbers(owner: dict[str, Any]) -> dict[str, float]:
    """The measures: fractional numbers. Counts are whole numbers, absent measures null."""
    return {key: value for key, value in owner.items() if type(value) is float}


def _words(key: str) -> str:
    known = {
        "auroc": "AUROC", "f1": "F1", "ece": "calibration error (ECE)", "iou": "IoU",
        "dice": "Dice", "hd95": "HD95 in px",
    }  # fmt: skip
    whole = {
        "threshold_jaccard": "Jaccard, below 0.65 counted as 0",
        "hd95_median": "HD95 in px, median over images",
    }
    if key in whole:
        return whole[key]
    if key.endswith("_sd"):
        return f"{_words(key.removesuffix('_sd'))}, sd over images"
    return " ".join(known.get(word, word) for word in key.split("_"))


def _class_name(code: str) -> str:
    return f"{CLASSES[code].name} ({code})" if code in CLASSES else code


def _decision(decided: dict[str, Any]) -> str:
    """The verdict's numbers as a note to the table: its interval and its p."""
    interval, p = decided.get("interval"), decided.get("p")
    if not interval or p is None:
        return ""
    low, high = (digits(end, 3, sign=True) for end in interval)
    level = f"{100 * decided.get('confidence', 0.95):g} %"
    p_value = "p < 0.001" if p < 0.001 else f"p = {digits(p)}"
    return (
        f"{decided['metric']}, {decided.get('treatment', 'synthetic')} against "
        f"{decided.get('control', 'original')}: "
        f"{level} interval of the difference {low} to {high}, {p_value}"
    )


def _averaging(test: dict[str, Any]) -> str:
    """What the averages are over, as the stage that computed them says it."""
    averages = test.get("averaging")
    if isinstance(averages, dict):
        return "; ".join(f"{_words(str(key))}: {words}" for key, words in averages.items())
    return (
        f"Averages: {averages}; {test['empty_masks']}" if averages and "empty_masks" in test else ""
    )


def _model(trial: Trial) -> str:
    model = (trial.metrics or {}).get("model")
    if not isinstance(model, dict) or "name" not in model:
        return ""
    description = str(model["name"])
    if "weights" in model:
        description += f", weights: {model['weights']}"
    if isinstance(model.get("parameters"), int):
        description += f", {model['parameters'] / 1e6:.1f} million parameters"
    return description


def _confusions(done: list[Trial], arms: list[str]) -> list[Table]:
    tables = []
    for arm in arms:
        own = [t for t in done if t.arm == arm and isinstance(_test(t).get("confusion"), dict)]
        if not own:
            continue
        confusions = [_test(trial)["confusion"] for trial in own]
        caption = f"Confusion matrix, {arm}: sum over {plural(len(own), 'seed')}"
        try:
            names = confusions[0]["classes"]
            tables.append(
                confusion_table(caption, names, [each["rows_true"] for each in confusions])
            )
        except (KeyError, TypeError, ValueError) as error:
            path = own[0].folder / "metrics.json"
            raise broken(
                path, f"a confusion matrix with {error}", "classes and rows_true"
            ) from error
    return tables
