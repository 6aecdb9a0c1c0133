"""The verdict: whether adding synthetic images changed the models' test scores, and all that was
compared."""

from pathlib import Path
from typing import Any

from didgen.report.figures import Chart, Line, arms_chart, interval_chart, line_chart
from didgen.report.numbers import digits, interval, listed, p_text, plural
from didgen.report.page import Options, Section
from didgen.report.reading import broken, finite, json_file
from didgen.report.tables import Cell, Row, Table

# All four answers have the same form: the heading's words, and a sign.
ANSWERS = {
    "helps": ("synthetic images help", "\N{BLACK UP-POINTING TRIANGLE}"),
    "hurts": ("synthetic images hurt", "\N{BLACK DOWN-POINTING TRIANGLE}"),
    "equivalent": ("synthetic images make no difference worth having", "\N{IDENTICAL TO}"),
    "inconclusive": ("not enough data to tell", "\N{BLACK CIRCLE}"),
}
# The metrics in plain words, and whether they are shares that read well in percent.
METRICS = {
    "balanced accuracy": (
        "the share of images whose diagnosis the model names rightly, averaged over the diagnoses "
        "so that rare ones count as much as common ones",
        True,
    ),
    "macro F1": (
        "how well a diagnosis is found and not named wrongly, averaged over the diagnoses",
        False,
    ),
    "accuracy": ("the share of images whose diagnosis the model names rightly", True),
    "Dice": (
        "how much of the lesion as the model outlines it and as the expert does is the same: 0 is "
        "nothing, 1 all",
        False,
    ),
    "IoU": (
        "the area that the model's and the expert's outline share, over the area that either "
        "holds: 0 is nothing, 1 all",
        False,
    ),
}
CONTROLS = {
    "original": "the real images alone",
    "duplicates": "the real images and, in place of synthetic ones, as many copies of real ones",
    "classic": "the real images, changed more strongly by usual augmentation",
    "oversampled": "the real images, rare diagnoses shown more often",
    "weighted": "the real images, rare diagnoses counting more",
    **dict.fromkeys(
        ("pseudo", "pseudo_labels", "pseudo_masks"),
        "the real images, and real ones that a first model diagnosed or outlined",
    ),
}
FAMILIES = {
    "control": "Synthetic arms against the control named beforehand",
    "original": "All arms against the original images alone",
    "every control": "Synthetic arms against every control",
}
COPIES = "duplicates"


def section(run_dir: Path, options: Options) -> Section:
    """Read verdict.json; one entry per task. Raises: BrokenResult for one of an earlier edition."""
    path = run_dir / "verdict.json"
    verdict = json_file(path)
    if verdict is None:
        reason = "No verdict was reached in this run: there is no verdict.json."
        return Section("verdict", "Verdict", None, (reason,))
    tasks = verdict.get("tasks")
    if not isinstance(tasks, dict) or not tasks:
        raise broken(path, f"{tasks!r} under 'tasks'", "one object per task")
    try:
        entries = [_task(path, name, task) for name, task in tasks.items()]
    # Whatever is of another kind than the verdict stage writes it, however deep.
    except (AttributeError, LookupError, TypeError) as error:
        raise broken(path, f"values of another kind ({error!r})", "a verdict as written") from error
    absent = [name for name in ("classification", "segmentation") if name not in tasks]
    missing = tuple(f"The run has no {name} task." for name in absent)
    return Section("verdict", "Verdict", {"tasks": entries}, missing)


def _task(path: Path, name: str, task: Any) -> dict[str, Any]:
    needed = ("metric", "arms", "treatment", "control", "interval", "verdict", "sentence",
              "equivalence", "beats_every_control", "comparisons")  # fmt: skip
    if not isinstance(task, dict) or any(key not in task for key in needed):
        raise broken(
            path, f"the task '{name}' without all it needs",
            f"{', '.join(needed)}; reach the verdict again if it is of an earlier version",
        )  # fmt: skip
    if task["verdict"] not in ANSWERS:
        raise broken(path, f"the verdict {task['verdict']!r}", " or ".join(map(repr, ANSWERS)))
    low, high = _ends(path, task)
    difference = finite(path, task, "difference")
    arms = {arm: _arm(path, numbers) for arm, numbers in task["arms"].items()}
    answer, sign = ANSWERS[task["verdict"]]
    control, treatment = str(task["control"]), str(task["treatment"])
    metric, level = str(task["metric"]), f"{100 * finite(path, task, 'confidence'):g}"
    delta = finite(path, task["equivalence"], "delta")
    return {
        "name": str(name),
        "metric": metric,
        "verdict": task["verdict"],
        "answer": answer,
        "sign": sign,
        "plain": _plain(path, task, arms, low, high, level),
        "sentence": str(task["sentence"]),
        "arms": arms,
        "control": control,
        "treatment": treatment,
        "difference": difference,
        "low": low,
        "high": high,
        "level": level,
        "delta": delta,
        "every": "yes" if task["beats_every_control"].get("verdict") else "not shown",
        "comparisons": _comparison_tables(path, metric, task["comparisons"], level),
        "calibration": _calibration_table(path, task.get("calibration", []), level),
        "groups": _groups_table(path, metric, task.get("groups"), control, treatment),
        "external": _external_table(path, metric, task.get("external", []), level),
        "doses": _slopes(path, metric, task.get("doses", []), level),
        "dose_chart": dose_chart(f"dose-{name}", str(name), metric, arms),
        "p": finite(path, task, "p"),
        "test": str(task.get("test", "not named")),
        "n_corrected_for": task.get("n_corrected_for", 1),
        "sensitivity": {
            str(test): finite(path, task["sensitivity"], test)
            for test in task.get("sensitivity", {})
        },
        "others": {
            str(test): finite(path, task["other_tests"], test)
            for test in task.get("other_tests", {})
        },
        "n_test": task.get("n_test", "not given"),
        "n_seeds": task.get("n_seeds", "not given"),
        "n_generators": task.get("n_generators", 1),
        "generalises": str(task.get("generalises", "")),
        "interval_chart": interval_chart(
            f"interval-{name}",
            f"{name}: difference, {level} % interval",
            difference,
            low,
            high,
            f"difference in {metric}",
            control,
            treatment,
            delta,
        ),
        "arms_chart": arms_chart(
            f"arms-{name}",
            f"{name}: each seed, mean \N{PLUS-MINUS SIGN} sd",
            {arm: numbers["per_seed"] for arm, numbers in arms.items()},
            metric,
        ),
    }


def _ends(path: Path, owner: dict[str, Any]) -> tuple[float, float]:
    ends = owner.get("interval")
    if not isinstance(ends, list) or len(ends) != 2:
        raise broken(path, f"{ends!r} under 'interval'", "two numbers")
    low, high = (finite(path, {"interval": end}, "interval") for end in ends)
    return low, high


def _plain(
    path: Path, task: dict[str, Any], arms: dict[str, Any], low: float, high: float, level: str
) -> list[str]:
    """The verdict in plain words: what was compared, what came out, what it means."""
    metric, treatment, control = (str(task[key]) for key in ("metric", "treatment", "control"))
    explanation, percent = METRICS.get(metric, ("", False))

    def amount(value: float, sign: bool = False) -> str:
        return digits(100 * value, 1, sign) if percent else digits(value, 3, sign)

    unit, points = (" %", " percentage points") if percent else ("", "")
    others = CONTROLS.get(control, f"the arm {control}")
    seeds = task.get("n_seeds", 0)
    before, after = (arms[arm]["mean"] for arm in (control, treatment))
    moved = "rose" if after > before else "fell" if after < before else "stayed the same"
    change = amount(abs(after - before))
    images = plural(task.get("n_test", 0), "real image")
    lesions = plural(task.get("n_clusters", 0), "lesion or patient", "lesions or patients")
    times, generators = "once" if seeds == 1 else f"{seeds} times", task.get("n_generators", 1)
    made = f", with the images of {generators} generators in turn" if generators > 1 else ""
    compared = (
        "Models that learned from the real images and the synthetic ones were compared with models "
        f"that learned from {others}. All were tested on the same {images} of {lesions}. Chance "
        f"plays a part in training; each was done {times}{made}."
    )
    result = (
        f"{metric[0].upper()}{metric[1:]} ({explanation}) {moved}"
        if explanation
        else f"{metric} {moved}"
    )
    if moved != "stayed the same":
        result += f" by {change}{points}, from {amount(before)}{unit} to {amount(after)}{unit}"
    result += (
        f". The data fit any true change from {amount(low, True)} to {amount(high, True)}{points} "
        f"({level} % confidence interval)."
    )
    meaning = _meaning(path, task, amount, points)
    return [compared, result, meaning, str(task.get("generalises", ""))]


def _meaning(path: Path, task: dict[str, Any], amount: Any, points: str) -> str:
    delta = finite(path, task["equivalence"], "delta")
    worth = f"{amount(delta)}{points}, set beforehand as the least that is worth having"
    every, reach = task["beats_every_control"], task.get("reach")
    if task["verdict"] == "helps":
        others = [name for name in task["arms"] if not task["arms"][name].get("n_synthetic")]
        text = "So the synthetic images helped. "
        text += (
            f"They did better than every other use of the real images that was tried "
            f"({listed(others)})."
            if every.get("verdict")
            else f"That they do better than every other use of the real images is not shown: "
            f"{every.get('control')} comes too close."
        )
        high = task["interval"][1]
        return text + (f" But the gain is below {worth}." if high < delta else "")
    if task["verdict"] == "hurts":
        return "So the synthetic images did harm."
    if task["verdict"] == "equivalent":
        return (
            f"So the synthetic images make no difference that matters: any change is below {worth}."
        )
    if not reach:
        return (
            "So nothing can be said: each training was done once, and two trainings on the same "
            "images already differ by chance. Set at least two seeds, better five."
        )
    ways = []
    if reach.get("seeds"):
        of = f", with {reach['generators']} generators" if "generators" in reach else ""
        ways.append(f"each training {reach['seeds']} times{of}")
    if reach.get("images"):
        ways.append(f"tests on {reach['images']} images")
    needed = " or ".join(ways) or "both more trainings and more test images"
    return (
        "So this run cannot tell. It would have found a true change of "
        f"{amount(finite(path, reach, 'effect'))}{points} in "
        f"{100 * finite(path, reach, 'power'):.0f} of 100 repetitions, and smaller ones more "
        f"seldom. To find one half as large takes {needed}."
    )


def _arm(path: Path, numbers: Any) -> dict[str, Any]:
    if not isinstance(numbers, dict) or not numbers.get("per_seed"):
        raise broken(path, f"{numbers!r} for an arm", "mean, sd and per_seed")
    spread = None if numbers.get("sd") is None else finite(path, numbers, "sd")
    return {
        "alone": bool(numbers.get("n_synthetic")) and numbers.get("n_real") == 0,
        "mean": finite(path, numbers, "mean"),
        "sd": spread if len(numbers["per_seed"]) > 1 else None,
        "per_seed": [finite(path, {"per_seed": v}, "per_seed") for v in numbers["per_seed"]],
        **{
            key: numbers.get(key)
            for key in (
                "n_real",
                "n_synthetic",
                "n_duplicates",
                "n_pseudo",
                "synthetic_set",
                "val_score",
            )
        },
    }


def _comparison_tables(path: Path, metric: str, comparisons: Any, level: str) -> list[Table]:
    """One table per family of comparisons. Raises: BrokenResult where there is something else."""
    if not isinstance(comparisons, dict):
        raise broken(path, f"{comparisons!r} under 'comparisons'", "lists of comparisons")
    tables = []
    for family, caption in FAMILIES.items():
        rows = _family(path, comparisons, family)
        # With one control all families say the same.
        if not rows or (
            family != "control" and _names(rows) == _names(comparisons.get("control", []))
        ):
            continue
        others = list(dict.fromkeys(
            name for each in rows for kind in ("sensitivity", "other_tests")
            for name in each.get(kind, {})
        ))  # fmt: skip
        columns = (f"difference in {metric} [{level} %]", "p", "effect size", *others, "verdict")
        effect = rows[0].get("effect") or {}
        note = f"Effect size: {effect.get('name', 'not named')}. "
        if family == "control":
            count = rows[0].get("n_corrected_for", 1)
            note += "The first row is the lead claim" + (
                f", its p corrected by Holm for {count} tasks" if count > 1 else ""
            )
            note += "; all other claims are secondary, uncorrected, and decide nothing."
        else:
            note += "Secondary and uncorrected: these decide nothing."
        cells = tuple(_row(path, each, others) for each in rows)
        tables.append(Table(caption, "arm, control", columns, cells, note))
    return tables


def _family(path: Path, comparisons: dict[str, Any], family: str) -> list[dict[str, Any]]:
    rows = comparisons.get(family, [])
    if not isinstance(rows, list) or not all(isinstance(each, dict) for each in rows):
        raise broken(path, f"something else under '{family}'", "a list of comparisons")
    return rows


def _names(rows: list[dict[str, Any]]) -> list[tuple[Any, Any]]:
    return [(each.get("arm"), each.get("control")) for each in rows]


def _row(path: Path, each: dict[str, Any], others: list[str]) -> Row:
    if each.get("verdict") not in ANSWERS:
        raise broken(path, "a comparison without its interval or verdict", "both")
    tests = {**each.get("sensitivity", {}), **each.get("other_tests", {})}
    effect = (each.get("effect") or {}).get("value")
    cells = (
        _difference(path, each),
        Cell(text=p_text(finite(path, each, "p"))),
        Cell() if effect is None else Cell(value=float(effect), places=2, sign=True),
        *(Cell(text=p_text(finite(path, tests, name))) if name in tests else Cell()
          for name in others),
        Cell(text=str(each["verdict"])),
    )  # fmt: skip
    leading = "leading" if each.get("claim") == "lead" else ""
    return Row(f"{each.get('arm')} against {each.get('control')}", cells, leading)


def _difference(path: Path, each: dict[str, Any]) -> Cell:
    return Cell(text=interval(finite(path, each, "difference"), *_ends(path, each), sign=True))


def over_original(
    path: Path, metric: str, comparisons: Any, level: str
) -> dict[str, dict[str, Cell]]:
    """Columns for a table of arms: the difference to the original images, and its p; maybe none.

    Raises: BrokenResult for a comparison without its interval.
    """
    rows = _family(path, comparisons, "original") if isinstance(comparisons, dict) else []
    if not rows:
        return {}
    return {
        f"{metric}, difference to original [{level} %]": {
            str(each.get("arm")): _difference(path, each) for each in rows
        },
        "p, uncorrected": {
            str(each.get("arm")): Cell(text=p_text(finite(path, each, "p"))) for each in rows
        },
    }


def _calibration_table(path: Path, rows: list[dict[str, Any]], level: str) -> Table | None:
    """How well the classifier's confidence is calibrated; lower is better."""
    if not rows:
        return None
    arms = (str(rows[0].get("treatment", rows[0]["arm"])), str(rows[0]["control"]))
    cells = [
        Row(
            str(each["metric"]),
            (
                *(Cell(value=float(mean)) for mean in each["means"]),
                _difference(path, each),
                Cell(text=p_text(finite(path, each, "p"))),
                Cell(text=str(each["verdict"])),
            ),
        )
        for each in rows
    ]
    columns = (*arms, f"difference [{level} %]", "p", "verdict")
    note = (
        "Whether the probabilities that the classifier gives can be believed. Lower is better. "
        "Secondary and uncorrected."
    )
    return Table("Calibration", "measure", columns, tuple(cells), note)


def _groups_table(
    path: Path, metric: str, groups: Any, control: str, treatment: str
) -> Table | None:
    """The difference in each group of test images; the worst is marked."""
    if not isinstance(groups, dict) or not (groups.get("rows") or groups.get("too_small")):
        return None
    rows = []
    worst = groups.get("worst") or {}
    for each in groups["rows"]:
        same = (each["kind"], each["group"]) == (worst.get("kind"), worst.get("group"))
        rows.append(Row(
            f"{each['kind']}: {each['group']}",
            (
                Cell(value=each["n"], places=0),
                Cell(value=each["n_clusters"], places=0),
                *(Cell(value=finite(path, each, key)) for key in ("control", "treatment")),
                _difference(path, each),
                Cell(text=str(each["verdict"]) or "\N{EN DASH}"),
            ),
            "leading" if same else "",
        ))  # fmt: skip
    small = [
        f"{each['kind']} {each['group']} ({each['n']})" for each in groups.get("too_small", [])
    ]
    level = 100 * finite(path, groups, "confidence")
    note = (
        f"The intervals hold for all groups together ({level:.1f} % each). harmed: the whole "
        "interval lies below 0. The row that stands out has the worst difference."
    )
    if small:
        note += f" Groups with too few test images to judge: {listed(small)}."
    columns = ("images", "lesions", control, treatment, f"difference in {metric}", "")
    return Table("Groups of test images", "group", columns, tuple(rows), note)


def _external_table(
    path: Path, metric: str, sets: list[dict[str, Any]], level: str
) -> tuple[Table, ...]:
    """The difference on each data set that nothing was trained on, and every arm's scores there."""
    if not sets:
        return ()
    treatment, control = (str(sets[0][key]) for key in ("arm", "control"))
    rows = [
        Row(
            str(each["set"]),
            (
                Cell(value=each["n"], places=0),
                Cell(value=each["n_clusters"], places=0),
                *(Cell(value=finite(path, each["arms"], arm)) for arm in (control, treatment)),
                _difference(path, each),
                Cell(text=p_text(finite(path, each, "p"))),
                Cell(text=str(each["verdict"])),
            ),
        )
        for each in sets
    ]
    difference = f"difference in {metric} [{level} %]"
    columns = ("images", "lesions", control, treatment, difference, "p", "verdict")
    note = (
        "The same networks, tested on data sets that nothing was trained on and from which "
        "relatives of what networks learn from were left out. Secondary and uncorrected."
    )
    if any(each["classes"] for each in sets):
        kinds = "; ".join(f"{each['set']}: {listed(each['classes'])}" for each in sets)
        note += f" Diagnoses: {kinds}."
    everyone = Table(
        f"{metric[0].upper()}{metric[1:]} of each arm on other data sets", "trained on",
        tuple(str(each["set"]) for each in sets),
        tuple(
            Row(arm, tuple(Cell(value=finite(path, each["arms"], arm)) for each in sets))
            for arm in sets[0]["arms"]
        ),
        "Mean over seeds.",
    )  # fmt: skip
    return Table("Other data sets", "data set", columns, tuple(rows), note), everyone


def _slopes(path: Path, metric: str, slopes: list[dict[str, Any]], level: str) -> str:
    """What each doubling of the added images changes, in words."""
    parts = []
    for each in slopes:
        change = interval(finite(path, each, "slope"), *_ends(path, each), sign=True)
        what = "copies" if each["set"] == COPIES else f"images of {each['set']}"
        parts.append(f"{change} for {what}")
    if not parts:
        return ""
    changes = listed(parts)
    return f"Each doubling of what is added changes {metric} by {changes} ({level} % interval)."


def dose_chart(key: str, task: str, metric: str, arms: dict[str, Any]) -> Chart | None:
    """The metric over added images per real one, a line per synthetic set; None with one dose only.

    Each seed is a faint line; the original images alone are the point at 0.
    """
    doses: dict[str, list[tuple[float, list[float]]]] = {}
    for numbers in arms.values():
        added = numbers.get("n_synthetic") or numbers.get("n_duplicates")
        if added and numbers.get("n_real"):
            name = numbers.get("synthetic_set") or COPIES
            doses.setdefault(str(name), []).append((added / numbers["n_real"], numbers["per_seed"]))
    start = [(0.0, arms["original"]["per_seed"])] if "original" in arms else []
    lines: list[Line] = []
    for series, (name, of_set) in enumerate(sorted(doses.items(), key=lambda d: d[0] == COPIES)):
        if len(of_set) < 2 and name != COPIES:
            continue
        points = sorted(start + of_set, key=lambda point: point[0])
        x = [dose for dose, _ in points]
        lines += [
            Line("", x, list(one), series, faint=True)
            for one in zip(*(values for _, values in points), strict=True)
        ]
        lines.append(Line(name, x, [sum(v) / len(v) for _, v in points], series))
    if not any(line.name not in ("", COPIES) for line in lines):
        return None
    return line_chart(
        key,
        f"{task}: how much is added",
        lines,
        "added images per real image",
        metric,
        note="Thick: mean over seeds; faint: each seed. At 0, the original images alone.",
    )
