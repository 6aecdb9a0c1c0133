"""Training: the losses of the fine-tuning, and how the downstream models went."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from didgen.report.figures import Chart, Line, line_chart
from didgen.report.page import Options, Section
from didgen.report.reading import broken, number_table, trials

if TYPE_CHECKING:
    import pandas as pd

LOSSES = {
    "loss": "Total loss, L_rec + \N{GREEK SMALL LETTER ALPHA} L_attn",
    "loss_rec": "Reconstruction loss L_rec",
    "loss_attn": "Attention loss L_attn",
}
POINTS = 220  # as many as a chart of this width can show


def section(run_dir: Path, options: Options) -> Section:
    """Charts of backbone/training.csv and of every curves.csv of the downstream models."""
    missing, finetuning = [], []
    path = run_dir / "backbone" / "training.csv"
    frame = number_table(path, ("step",))
    if frame is None:
        missing.append("The backbone was not fine-tuned in this run: no training.csv.")
    elif frame.empty:
        missing.append("The fine-tuning wrote no step to training.csv.")
    else:
        finetuning = _losses(frame)
    downstream = []
    for task, folder in (("classification", "classify"), ("segmentation", "segment")):
        charts = _curves(task, run_dir / folder)
        downstream.extend(charts)
        if not charts:
            missing.append(f"No training curves of {task} were written in this run.")
    if not finetuning and not downstream:
        return Section("training", "Training", None, tuple(missing))
    content = {"finetuning": finetuning, "downstream": downstream, "facts": _facts(frame)}
    return Section("training", "Training", content, tuple(missing))


def _facts(frame: "pd.DataFrame | None") -> dict[str, Any]:
    if frame is None or frame.empty:
        return {}
    facts = {"steps": int(frame["step"].max())}
    if "seconds" in frame and frame["seconds"].notna().any():
        seconds = frame["seconds"].dropna()
        # A running clock grows with every row; a duration of each step does not.
        total = seconds.iloc[-1] if seconds.is_monotonic_increasing else seconds.sum()
        facts["minutes"] = float(total) / 60
    return facts


def _losses(frame: "pd.DataFrame") -> list[Chart]:
    charts = []
    for index, (column, title) in enumerate(LOSSES.items()):
        if column not in frame or frame[column].notna().sum() == 0:
            continue
        rows = frame[["step", column]].dropna()
        x, y = rows["step"].tolist(), rows[column].tolist()
        lines = [Line("mean of neighbours", *thinned(x, smoothed(y)), series=index)]
        if len(y) > 20:
            lines.insert(0, Line("", *thinned(x, y), series=index, faint=True))
        log = min(y) > 0 and max(y) / min(y) > 15
        charts.append(line_chart(f"train-{column}", title, lines, "step", column, log))
    return charts


def smoothed(values: list[float]) -> list[float]:
    """The running mean over a window of 5 % of the values, centred, shorter at the ends."""
    reach = max(0, len(values) // 40)
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    result = []
    for index in range(len(values)):
        low, high = max(0, index - reach), min(len(values), index + reach + 1)
        result.append((sums[high] - sums[low]) / (high - low))
    return result


def thinned(x: list[float], y: list[float]) -> tuple[list[float], list[float]]:
    """At most `POINTS` points, each the mean of its bin of neighbours."""
    if len(x) <= POINTS:
        return x, y
    edges = [round(i * len(x) / POINTS) for i in range(POINTS + 1)]
    bins = [slice(a, b) for a, b in zip(edges, edges[1:], strict=False)]
    return (
        [sum(x[part]) / len(x[part]) for part in bins],
        [sum(y[part]) / len(y[part]) for part in bins],
    )


def _curves(task: str, folder: Path) -> list[Chart]:
    """One chart a measure: one curve a seed, coloured by arm."""
    tables = []
    for trial in trials(folder):
        path = trial.folder / "curves.csv"
        frame = number_table(path, ())
        if frame is None:
            continue
        axis = next((name for name in ("step", "epoch") if name in frame), None)
        if axis is None:
            raise broken(path, f"columns {', '.join(frame.columns)}", "also step or epoch")
        tables.append((trial, axis, frame))
    if not tables:
        return []
    arms = list(dict.fromkeys(trial.arm for trial, _, _ in tables))
    axis = tables[0][1]
    hidden = {"step", "epoch", "seconds", "lr"}
    measures = dict.fromkeys(n for _, _, f in tables for n in f.columns if n not in hidden)
    charts = []
    for measure in measures:
        lines, named = [], set()
        for trial, own_axis, frame in tables:
            if measure not in frame or own_axis != axis:
                continue
            rows = frame[[axis, measure]].dropna()
            if rows.empty:
                continue
            name = "" if trial.arm in named else trial.arm
            named.add(trial.arm)
            points = thinned(rows[axis].tolist(), rows[measure].tolist())
            lines.append(Line(name, *points, series=arms.index(trial.arm)))
        if lines:
            values = [value for line in lines for value in line.y if not math.isnan(value)]
            log = "loss" in measure and min(values) > 0 and max(values) / min(values) > 15
            label = measure.replace("_", " ")
            title = f"{task.capitalize()}: {label}"
            charts.append(line_chart(f"{task}-{measure}", title, lines, axis, label, log))
    return charts
