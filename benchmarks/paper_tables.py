"""The paper's Tables 1, 2 and 3 from finished runs, as Markdown.

Run: python -m benchmarks.paper_tables results/isic2018 [results/isic2018-vgg16 ...]

A run has one classifier, one segmenter and one number of real images. Table 2 sets the classifiers
of several runs side by side, Table 3 segmenters and numbers of real images. Rows are all arms, the
controls too; beside the paper's measures stands the difference to the original images in the metric
that decides, with its interval and the p of that comparison, uncorrected: it is no lead claim. What
a run lacks is a dash.
"""

import argparse
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from didgen.report.numbers import digits, interval, p_text
from didgen.runtime.files import read_json

NONE = "–"
FOLDERS = {"classification": "classify", "segmentation": "segment"}
AVERAGES = ("precision", "recall", "f1")


@dataclass(frozen=True)
class Column:
    """One network of one run: what its arms reached, (S,) each, and how they compare."""

    title: str
    run: str
    reached: dict[str, dict[str, list[float]]]
    differences: dict[str, dict[str, Any]]
    heading: str

    def shown(self, arm: str, measure: str, spread: bool = True) -> str:
        """The mean over seeds, with its standard deviation."""
        values = self.reached.get(arm, {}).get(measure)
        if not values:
            return NONE
        mean = digits(statistics.fmean(values))
        return f"{mean} ± {digits(statistics.stdev(values))}" if spread and values[1:] else mean

    def difference(self, arm: str) -> str:
        """The difference to the original images, its interval and p."""
        row = self.differences.get(arm)
        if row is None:
            return NONE
        p = p_text(row["p"])
        p = f"p {p}" if p.startswith("<") else f"p = {p}"
        return f"{interval(row['difference'], *row['interval'], sign=True)}, {p}"


def column(run: Path, task: str) -> Column | None:
    """The arms and seeds that the run's verdict compared; None without that task.

    Raises: ValueError for a verdict of an earlier version.
    """
    decided = read_json(run / "verdict.json")["tasks"].get(task)
    if decided is None:
        return None
    if "per_seed" not in decided or "comparisons" not in decided:
        raise ValueError(
            f"{run}/verdict.json: found no `comparisons` or `per_seed`; it is of an earlier "
            "version: reach the verdict again"
        )
    seeds = [each["seed"] for each in decided["per_seed"]]
    reached: dict[str, dict[str, list[float]]] = {}
    for arm in decided["arms"]:
        for seed in seeds:
            metrics = read_json(run / FOLDERS[task] / arm / f"seed{seed}" / "metrics.json")
            own = metrics["test"]
            measures = {
                f"{average} {name}": own[average][name]
                for average in ("weighted", "macro") if average in own for name in AVERAGES
            }  # fmt: skip
            measures |= {name: own[name] for name in ("iou", "dice") if name in own}
            for name, value in measures.items():
                reached.setdefault(arm, {}).setdefault(name, []).append(value)
    return Column(
        f"{metrics['model']['name']}, {metrics['n_real']} real",
        run.name,
        reached,
        {each["arm"]: each for each in decided["comparisons"]["original"]},
        f"{decided['metric']} over original [{100 * decided['confidence']:g} %]",
    )


def columns_of(runs: list[Path], task: str) -> list[Column]:
    """One a run; where two have the same network and number of images, the runs' names are added.

    Raises: ValueError for a run without a verdict.
    """
    absent = [str(run) for run in runs if not (run / "verdict.json").is_file()]
    if absent:
        raise ValueError(f"found no verdict.json in {absent}, expected finished runs; run them")
    columns = [each for run in runs if (each := column(run, task)) is not None]
    titles = [each.title for each in columns]
    return [
        Column(f"{c.title}, {c.run}", c.run, c.reached, c.differences, c.heading)
        if titles.count(c.title) > 1 else c
        for c in columns
    ]  # fmt: skip


def arms_of(columns: list[Column]) -> list[str]:
    """All arms in the order in which they are met, which begins with the original images."""
    return list(dict.fromkeys(arm for each in columns for arm in each.reached))


def table_2(columns: list[Column], average: str = "weighted") -> str:
    """Precision, recall and F1 of each classifier, then its difference to the original images."""
    words = {"f1": "F1"}
    head = [f"{words.get(n, n)}, {average}: {c.title}" for n in AVERAGES for c in columns]
    head += [f"{c.heading}: {c.title}" for c in columns]
    rows = [
        [arm, *(c.shown(arm, f"{average} {name}") for name in AVERAGES for c in columns),
         *(c.difference(arm) for c in columns)]
        for arm in arms_of(columns)
    ]  # fmt: skip
    return markdown(["trained on", *head], rows)


def table_3(columns: list[Column]) -> str:
    """IoU / Dice of each segmenter and number of real images, each with its difference."""
    head = [words for c in columns for words in (f"IoU/Dice: {c.title}", c.heading)]
    rows = []
    for arm in arms_of(columns):
        row = [arm]
        for c in columns:
            both = "/".join(c.shown(arm, name, spread=False) for name in ("iou", "dice"))
            row += [both if arm in c.reached else NONE, c.difference(arm)]
        rows.append(row)
    return markdown(["trained on", *head], rows)


def table_1(runs: list[Path]) -> str:
    """Distances to real images, likeness to them and variety, of each set of images of each run."""
    rows: dict[str, dict[str, str]] = {}
    head = []
    for run in runs:
        path = run / "fidelity" / "fidelity.json"
        for name, own in (read_json(path)["sets"] if path.is_file() else {}).items():
            title = f"{run.name}, {own['n_synthetic']} {name} against {own['n_real']}"
            head.append(title)
            for space in own["spaces"].values():
                for measure, each in space["measures"].items():
                    floor = each["matched"]
                    cell = f"{interval(each['value'], *each['interval'])}; of {floor['n']}: "
                    cell += f"{digits(floor['synthetic']['mean'])}, "
                    cell += f"real {digits(floor['real']['mean'])}"
                    rows.setdefault(measure, {})[title] = cell
            for measure, kinds in own["pairs"]["measures"].items():
                for kind, each in kinds.items():
                    cell = interval(each["mean"], *each["interval"])
                    rows.setdefault(f"{measure}, {kind}", {})[title] = cell
    cells = [[measure, *(row.get(title, NONE) for title in head)] for measure, row in rows.items()]
    return markdown(["measure", *head], cells)


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table; a line of words where it would be empty."""
    if not rows:
        return "None of the runs has this."
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished runs")
    parser.add_argument("--average", choices=("weighted", "macro"), default="weighted",
                        help="of Table 2; the paper's `micro` can only be one of them")  # fmt: skip
    given = parser.parse_args()
    try:
        classifiers, segmenters = (columns_of(given.runs, task) for task in FOLDERS)
    except ValueError as error:
        parser.error(str(error))
    print("Table 1\n\n" + table_1(given.runs))
    print(f"\nTable 2 ({given.average})\n\n" + table_2(classifiers, given.average))
    print("\nTable 3\n\n" + table_3(segmenters))


if __name__ == "__main__":
    main()
