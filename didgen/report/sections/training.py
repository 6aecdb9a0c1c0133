"""Training: the losses of the fine-tuning, and how the downstream models went."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from didgen.report.figures import Chart, Line, line_chart
from didgen.report.numbers import listed
from didgen.report.page import Options, Section
from didgen.report.pictures import Picture, embed
from didgen.report.reading import Trial, number_table, sets_of_methods, trials
from didgen.settings.methods import needs_fine_tuning

if TYPE_CHECKING:
    import pandas as pd

LOSSES = {
    "loss": "Total loss, L_rec + \N{GREEK SMALL LETTER ALPHA} L_attn",
    "loss_rec": "Reconstruction loss L_rec",
    "loss_attn": "Attention loss L_attn",
    "grad_norm": "Norm of the gradient, before clipping",
}
LOSS_SERIES = 3  # a colour that stands for no arm
# Of validation.csv: title, unit on the axis, and the lines by name.
VALIDATION = {
    "validation-loss": (
        "Validation: L_rec at fixed timesteps and noises",
        "loss",
        {"little": "loss_rec_100", "medium": "loss_rec_400", "much noise": "loss_rec_700"},
    ),
    "validation-attention": (
        "Validation: attention loss L_attn",
        "loss",
        {"validation images": "loss_attn"},
    ),
    "validation-iou": (
        "Validation: IoU of the thresholded maps and their regions",
        "IoU",
        {"<lesion>": "iou_lesion", "<skin>": "iou_skin"},
    ),
}
POINTS = 220  # as many as a chart of this width can show


def section(run_dir: Path, options: Options) -> Section:
    """Charts of finetune/training.csv and of every curves.csv of the downstream models."""
    missing, finetuning, watched = [], [], []
    frame = None
    backbone = run_dir / "finetune"
    tuned = needs_fine_tuning(sets_of_methods(run_dir))
    if tuned:
        frame = number_table(backbone / "training.csv", ("step",))
        watched = _validation(backbone)
    if not tuned:
        missing.append("Nothing in this run is made with a fine-tuned backbone.")
    elif frame is None:
        missing.append("The backbone was not fine-tuned in this run: no training.csv.")
    elif frame.empty:
        missing.append("The fine-tuning wrote no step to training.csv.")
    else:
        finetuning = _losses(frame)
    downstream = []
    for task, folder in (("classification", "classify"), ("segmentation", "segment")):
        charts = _curves(task, run_dir, folder)
        downstream.extend(charts)
        if not charts:
            missing.append(f"No training curves of {task} were written in this run.")
    if not finetuning and not downstream:
        return Section("training", "Training", None, tuple(missing))
    content = {
        "finetuning": finetuning,
        "validation": watched,
        "picture": _last_look(backbone / "validation", options),
        "downstream": downstream,
        "facts": _facts(frame),
    }
    return Section("training", "Training", content, tuple(missing))


def _facts(frame: "pd.DataFrame | None") -> dict[str, Any]:
    if frame is None or frame.empty:
        return {}
    facts: dict[str, float] = {"steps": int(frame["step"].max())}
    if "seconds" in frame and frame["seconds"].notna().any():
        clock = frame["seconds"].dropna()
        # The clock starts anew when a training is resumed: a step back begins another stretch.
        gained = clock.diff().fillna(clock)
        facts["minutes"] = float(gained.where(gained >= 0, clock).sum()) / 60
    return facts


def _losses(frame: "pd.DataFrame") -> list[Chart]:
    charts = []
    for column, title in LOSSES.items():
        if column not in frame or frame[column].notna().sum() == 0:
            continue
        rows = frame[["step", column]].dropna()
        x, y = rows["step"].tolist(), rows[column].tolist()
        lines = [Line("mean of neighbours", *thinned(x, smoothed(y)), series=LOSS_SERIES)]
        if len(y) > 20:
            lines.insert(0, Line("", *thinned(x, y), series=LOSS_SERIES, faint=True))
        log = min(y) > 0 and max(y) / min(y) > 15
        charts.append(
            line_chart(
                f"train-{column}",
                title,
                lines,
                "step",
                column.split("_")[0].replace("grad", "norm"),
                log,
            )
        )
    return charts


def _validation(folder: Path) -> list[Chart]:
    """Charts of validation.csv: its rows are looks at held-out images during the training."""
    frame = number_table(folder / "validation.csv", ("step",))
    if frame is None or frame.empty:
        return []
    charts = []
    for key, (title, label, columns) in VALIDATION.items():
        lines = [
            Line(name, *_points(frame, column), series=LOSS_SERIES + index)
            for index, (name, column) in enumerate(columns.items())
            if column in frame and frame[column].notna().any()
        ]
        if lines:
            charts.append(line_chart(key, title, lines, "step", label))
    return charts


def _points(frame: "pd.DataFrame", column: str) -> tuple[list[float], list[float]]:
    rows = frame[["step", column]].dropna()
    return rows["step"].tolist(), rows[column].tolist()


def _last_look(folder: Path, options: Options) -> Picture | None:
    """The picture of the last look: held-out images with their maps, then samples."""
    pictures = sorted(folder.glob("step-*.png"))
    if not pictures:
        return None
    step = int(pictures[-1].stem.removeprefix("step-"))
    alt = (
        f"After step {step}: rows of a validation image, its <lesion> and <skin> map and the true "
        "outline; last, samples of the same prompt"
    )
    return embed(pictures[-1], alt, 6 * options.picture_side, options.picture_quality)


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


def _curves(task: str, run_dir: Path, folder: str) -> list[Chart]:
    """Two charts, losses and validation score: one curve a seed, coloured by arm."""
    tables = [
        (trial, frame)
        for trial in trials(run_dir, folder)
        if (frame := number_table(trial.folder / "curves.csv", ("step", "val_score"))) is not None
    ]
    arms = list(dict.fromkeys(trial.arm for trial, _ in tables))
    named = {trial.metrics.get("val_score", "score") for trial, _ in tables if trial.metrics}
    score = f"validation {listed(sorted(map(str, named))) or 'score'}"
    charts = []
    for label, columns in (("loss", ("train_loss", "val_loss")), (score, ("val_score",))):
        lines = [
            line
            for trial, frame in tables
            for column in columns
            if (line := _line(trial, frame, column, arms)) is not None
        ]
        if lines:
            values = [value for line in lines for value in line.y]
            log = label == "loss" and min(values) > 0 and max(values) / min(values) > 15
            title = f"{task.capitalize()}: {label}"
            key = f"{task}-{columns[-1].replace('_', '-')}"
            charts.append(line_chart(key, title, lines, "step", label, log))
    return charts


def _line(trial: Trial, frame: "pd.DataFrame", column: str, arms: list[str]) -> Line | None:
    if column not in frame:
        return None
    rows = frame[["step", column]].dropna()
    if rows.empty:
        return None
    points = thinned(rows["step"].tolist(), rows[column].tolist())
    faint = column == "train_loss"
    name = "" if faint else trial.arm
    return Line(name, *points, series=arms.index(trial.arm), faint=faint)
