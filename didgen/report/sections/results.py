"""Results: every measure of every arm over the seeds, recall of each class, confusions."""

from pathlib import Path
from typing import Any

from didgen.data.classes import CLASSES
from didgen.report.page import Options, Section
from didgen.report.reading import Trial, broken, json_file, trials
from didgen.report.tables import Table, arms_table, confusion_table

TASKS = (("classification", "classify"), ("segmentation", "segment"))


def section(run_dir: Path, options: Options) -> Section:
    """Read every metrics.json below classify/ and segment/."""
    verdict = json_file(run_dir / "verdict.json") or {}
    missing, entries = [], []
    for task, folder in TASKS:
        found = trials(run_dir / folder)
        done = [trial for trial in found if trial.metrics is not None]
        missing.extend(
            f"{task.capitalize()}, arm {trial.arm}, seed {trial.seed}: no metrics.json."
            for trial in found
            if trial.metrics is None
        )
        if not done:
            missing.append(f"No model was tested on {task} in this run.")
            continue
        decided = (verdict.get("tasks") or {}).get(task) or {}
        entries.append(_task(task, done, str(decided.get("metric", ""))))
    content = {"tasks": entries} if entries else None
    return Section("results", "Results", content, tuple(missing))


def _task(task: str, done: list[Trial], leading: str) -> dict[str, Any]:
    arms = list(dict.fromkeys(trial.arm for trial in done))
    seeds = {arm: [trial.seed for trial in done if trial.arm == arm] for arm in arms}
    measures: dict[str, dict[str, list[float]]] = {}
    per_class: dict[str, dict[str, dict[str, list[float]]]] = {}
    for trial in done:
        for key, value in trial.metrics.items():
            if type(value) is float:
                name = key.replace("_", " ")
                measures.setdefault(name, {}).setdefault(trial.arm, []).append(value)
        for code, numbers in (trial.metrics.get("per_class") or {}).items():
            for key, value in _numbers(trial, numbers).items():
                rows = per_class.setdefault(key, {}).setdefault(_class_name(code), {})
                rows.setdefault(trial.arm, []).append(value)
    lowered = next((name for name in measures if name.lower() == leading.lower()), "")
    tables = [
        arms_table(f"{task.capitalize()} on the test split", "measure", measures, arms, lowered)
    ]
    for key, rows in per_class.items():
        caption = f"{key.replace('_', ' ').capitalize()} of each class"
        tables.append(arms_table(caption, "class", rows, arms))
    return {
        "name": task,
        "arms": arms,
        "seeds": seeds,
        "tables": tables,
        "confusions": _confusions(done, arms),
        "single": all(len(own) == 1 for own in seeds.values()),
    }


def _numbers(trial: Trial, numbers: Any) -> dict[str, float]:
    if isinstance(numbers, dict):
        return {key: value for key, value in numbers.items() if type(value) is float}
    if isinstance(numbers, int | float):
        return {"recall": float(numbers)}
    path = trial.folder / "metrics.json"
    raise broken(path, f"{numbers!r} under 'per_class'", "numbers for each class")


def _class_name(code: str) -> str:
    return f"{CLASSES[code].name} ({code})" if code in CLASSES else code


def _confusions(done: list[Trial], arms: list[str]) -> list[Table]:
    tables = []
    for arm in arms:
        own = [trial for trial in done if trial.arm == arm and _matrix(trial)]
        if not own:
            continue
        names = own[0].metrics.get("classes") or list(own[0].metrics.get("per_class", ()))
        caption = f"Confusion matrix, {arm}: sum over {len(own)} seed{'s'[: len(own) > 1]}"
        try:
            tables.append(confusion_table(caption, names, [_matrix(trial) for trial in own]))
        except ValueError as error:
            raise broken(own[0].folder / "metrics.json", str(error), "a square matrix") from error
    return tables


def _matrix(trial: Trial) -> list[list[float]] | None:
    return trial.metrics.get("confusion_matrix") or trial.metrics.get("confusion")
