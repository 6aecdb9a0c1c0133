"""What the verdict computes for each pair of arms: interval, deciding test and secondary tests."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from didgen.metrics.statistics import Interval, Tally
    from didgen.stages.arm_results import Arms


@dataclass(frozen=True)
class Task:
    """One task: its arms, their parts of the metric, and what the secondary tests look at.

    `answers` holds, per arm, (S + 1, N) values of each image: one row a seed, the last one their
    ensemble; correctness for classification, scores for segmentation.
    """

    name: str
    metric: str
    arms: "Arms"
    tallies: dict[str, "Tally"]
    answers: dict[str, "np.ndarray"]
    clusters: "np.ndarray"

    @property
    def treatments(self) -> list[str]:
        """The arms with synthetic images."""
        return [arm for arm, own in self.arms.items() if own.n_synthetic]

    @property
    def controls(self) -> list[str]:
        """The arms without, `original` first."""
        return [arm for arm, own in self.arms.items() if not own.n_synthetic]

    @cached_property
    def best_control(self) -> str:
        """The control with the best mean validation score; of equal ones the first."""
        return max(self.controls, key=lambda arm: self.arms[arm].val_score)


@dataclass(frozen=True)
class Comparison:
    """An arm against a control; `p` is not yet corrected for other comparisons."""

    task: str
    arm: str
    control: str
    interval: "Interval"
    p: float
    tests: dict[str, float]
    effect_name: str
    effect: float | None
    per_seed: list[dict[str, Any]]


def classification(arms: "Arms", metric: str) -> Task:
    """The task from each image's prediction; the ensemble is the seeds' mean probability."""
    import numpy as np

    from didgen.metrics.statistics import f1_tally, mean_tally, recall_tally
    from didgen.stages.arm_results import clusters_of

    labels = next(iter(next(iter(arms.values())).tables.values()))["label"].to_numpy(str)
    tallies, answers = {}, {}
    for arm, own in arms.items():
        predicted = np.stack([t["prediction"].to_numpy(str) for t in own.tables.values()])
        if metric == "balanced accuracy":
            tallies[arm] = recall_tally(predicted, labels)
        elif metric == "macro F1":
            tallies[arm] = f1_tally(predicted, labels)
        else:
            tallies[arm] = mean_tally(predicted == labels)
        voted = _ensemble(list(own.tables.values()))
        answers[arm] = np.concatenate([predicted == labels, [voted == labels]])
    return Task("classification", metric, arms, tallies, answers, clusters_of(arms))


def segmentation(arms: "Arms", metric: str) -> Task:
    """The task from each image's Dice or IoU; the ensemble's score is the mean over seeds."""
    import numpy as np

    from didgen.metrics.statistics import mean_tally
    from didgen.stages.arm_results import clusters_of

    tallies, answers = {}, {}
    for arm, own in arms.items():
        scores = np.stack([t[metric.lower()].to_numpy(float) for t in own.tables.values()])
        tallies[arm] = mean_tally(scores)
        answers[arm] = np.concatenate([scores, scores.mean(0, keepdims=True)])
    return Task("segmentation", metric, arms, tallies, answers, clusters_of(arms))


def compare(
    task: Task, arm: str, control: str, confidence: float, resamples: int, seed: int
) -> Comparison:
    """Interval over lesions and seeds, the deciding p, and the secondary tests."""
    from didgen.metrics.significance import paired_t
    from didgen.metrics.statistics import Paired, clustered_bootstrap, deciding_p, sign_flip_test

    paired = Paired(task.tallies[arm], task.tallies[control], task.clusters)
    interval = clustered_bootstrap(paired, confidence, resamples, seed)
    ours, theirs = task.answers[arm], task.answers[control]
    secondary = _of_classification if task.name == "classification" else _of_segmentation
    tests, effect_name, effect, each_seed = secondary(ours, theirs, task.clusters)
    seeds = list(task.arms[arm].tables)
    rows = [
        {"seed": s, "difference": float(d), "p": each}
        for s, d, each in zip(seeds, paired.per_seed, each_seed, strict=True)
    ]
    of_seeds = None
    if len(seeds) > 1:
        of_seeds = paired_t(task.tallies[arm].per_seed, task.tallies[control].per_seed)
        tests["paired t over seeds"] = of_seeds
    p = deciding_p(interval, sign_flip_test(paired, resamples, seed), of_seeds)
    return Comparison(task.name, arm, control, interval, p, tests, effect_name, effect, rows)


Secondary = tuple[dict[str, float], str, float | None, list[float]]


def _of_classification(
    ours: "np.ndarray", theirs: "np.ndarray", clusters: "np.ndarray"
) -> Secondary:
    from didgen.metrics.significance import cohens_g, mcnemar_exact

    tests = {"McNemar exact on the seeds' ensemble": mcnemar_exact(ours[-1], theirs[-1])}
    each = [mcnemar_exact(a, b) for a, b in zip(ours[:-1], theirs[:-1], strict=True)]
    return tests, "Cohen's g of the ensemble", cohens_g(ours[-1], theirs[-1]), each


def _of_segmentation(ours: "np.ndarray", theirs: "np.ndarray", clusters: "np.ndarray") -> Secondary:
    import numpy as np

    from didgen.metrics.significance import cohens_dz, paired_t, wilcoxon

    tests = {
        "paired t over images": paired_t(ours[-1], theirs[-1]),
        "Wilcoxon over images": wilcoxon(ours[-1], theirs[-1]),
    }
    each = [paired_t(a, b) for a, b in zip(ours[:-1], theirs[:-1], strict=True)]
    _, place, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    means = [np.bincount(place, weights=scores[-1]) / sizes for scores in (ours, theirs)]
    return tests, "Cohen's d_z over lesions", cohens_dz(*means), each


def _ensemble(tables: list[Any]) -> "np.ndarray":
    import numpy as np

    columns = [c for c in tables[0].columns if c.startswith("p_")]
    mean = np.mean([table[columns].to_numpy(float) for table in tables], axis=0)
    return np.array([c.removeprefix("p_") for c in columns])[mean.argmax(1)]
