"""The verdict: whether adding synthetic images changed the models' test scores."""

from pathlib import Path
from typing import Any

from didgen.report.figures import arms_chart, interval_chart
from didgen.report.page import Options, Section
from didgen.report.reading import broken, finite, json_file
from didgen.report.sections.comparisons import comparison_tables, dose_chart

# The three verdicts are told in the same form, whichever way they fall.
ANSWERS = {
    "helps": ("synthetic images help", "\N{BLACK UP-POINTING TRIANGLE}"),
    "no evidence": ("no evidence that synthetic images help or hurt", "\N{BLACK CIRCLE}"),
    "hurts": ("synthetic images hurt", "\N{BLACK DOWN-POINTING TRIANGLE}"),
}


def section(run_dir: Path, options: Options) -> Section:
    """Read verdict.json; one entry a task."""
    path = run_dir / "verdict.json"
    verdict = json_file(path)
    if verdict is None:
        missing = ("No verdict was reached in this run: there is no verdict.json.",)
        return Section("verdict", "Verdict", None, missing)
    tasks = verdict.get("tasks")
    if not isinstance(tasks, dict) or not tasks:
        raise broken(path, f"{tasks!r} under 'tasks'", "one object a task")
    entries = [_task(path, name, task) for name, task in tasks.items()]
    absent = [name for name in ("classification", "segmentation") if name not in tasks]
    missing = tuple(f"The run has no {name} task." for name in absent)
    return Section("verdict", "Verdict", {"tasks": entries}, missing)


def _task(path: Path, name: str, task: Any) -> dict[str, Any]:
    needed = ("metric", "arms", "best_control", "interval", "verdict", "sentence")
    if not isinstance(task, dict) or any(key not in task for key in needed):
        raise broken(path, f"the task '{name}' without all it needs", ", ".join(needed))
    if task["verdict"] not in ANSWERS:
        raise broken(path, f"the verdict {task['verdict']!r}", " or ".join(map(repr, ANSWERS)))
    interval = task["interval"]
    if not isinstance(interval, list) or len(interval) != 2:
        raise broken(path, f"{interval!r} under 'interval'", "two numbers")
    low, high = (finite(path, {"interval": value}, "interval") for value in interval)
    difference = finite(path, task, "difference")
    arms = {arm: _arm(path, numbers) for arm, numbers in task["arms"].items()}
    answer, sign = ANSWERS[task["verdict"]]
    control = str(task["best_control"])
    confidence = finite(path, task, "confidence")
    metric, level = str(task["metric"]), f"{100 * confidence:g}"
    return {
        "name": str(name),
        "metric": metric,
        "verdict": task["verdict"],
        "kind": task["verdict"].replace(" ", "-"),
        "answer": answer,
        "sign": sign,
        "sentence": str(task["sentence"]),
        "arms": arms,
        "control": control,
        "difference": difference,
        "low": low,
        "high": high,
        "level": level,
        "treatment": str(task.get("treatment", "synthetic")),
        "chosen_by": str(task.get("best_control_by", "")),
        "comparisons": comparison_tables(path, metric, task.get("comparisons"), level),
        "dose_chart": dose_chart(f"dose-{name}", str(name), metric, arms),
        "p": finite(path, task, "p"),
        "test": str(task.get("test", "not named")),
        "others": {
            str(test): finite(path, task["other_tests"], test)
            for test in task.get("other_tests", {})
        },
        "n_test": task.get("n_test", "not given"),
        "n_seeds": task.get("n_seeds", "not given"),
        "interval_chart": interval_chart(
            f"interval-{name}",
            f"{name}: difference, {100 * confidence:g} % interval",
            difference,
            low,
            high,
            f"difference in {metric}",
            control,
            str(task.get("treatment", "synthetic")),
        ),
        "arms_chart": arms_chart(
            f"arms-{name}",
            f"{name}: each seed, mean \N{PLUS-MINUS SIGN} sd",
            {arm: numbers["per_seed"] for arm, numbers in arms.items()},
            metric,
        ),
    }


def _arm(path: Path, numbers: Any) -> dict[str, Any]:
    if not isinstance(numbers, dict) or not numbers.get("per_seed"):
        raise broken(path, f"{numbers!r} for an arm", "mean, sd and per_seed")
    spread = None if numbers.get("sd") is None else finite(path, numbers, "sd")
    return {
        "mean": finite(path, numbers, "mean"),
        "sd": spread if len(numbers["per_seed"]) > 1 else None,
        "per_seed": [finite(path, {"per_seed": v}, "per_seed") for v in numbers["per_seed"]],
        **{
            key: numbers.get(key)
            for key in ("n_real", "n_synthetic", "n_duplicates", "synthetic_set", "val_score")
        },
    }
