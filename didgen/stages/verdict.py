"""Compare the arms: does synthetic data help, and how sure is that?"""

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from didgen.data.settings import Section

if TYPE_CHECKING:
    import pandas as pd

    from didgen.metrics.statistics import Interval, Paired

LOGGER = logging.getLogger(__name__)
TREATMENT = "synthetic"
Runs = dict[str, dict[int, "pd.DataFrame"]]


class Settings(Section):
    """How sure is sure."""

    confidence: float = Field(
        0.95, gt=0.5, lt=1, description="level of the interval; alpha of the test is 1 minus it"
    )
    margin: float = Field(
        0.0, ge=0, lt=1, description="difference that the interval must exceed for `helps`"
    )
    resamples: int = Field(10_000, ge=100, description="resamples of the interval and the test")
    seed: int = Field(0, ge=0, description="seed of the resampling")


class Config(Settings):
    """Settings and paths of the stage."""

    run: str = Field(description="name of the run")
    classify: Path | None = Field(None, description="folder of <arm>/seed<s>/predictions.csv")
    segment: Path | None = Field(None, description="folder of <arm>/seed<s>/scores.csv")
    arms: tuple[str, ...] | None = Field(
        None, description="arms to compare; null: every folder that is there"
    )
    seeds: tuple[int, ...] | None = Field(
        None, description="seeds to compare; null: every folder that is there"
    )
    out: Path = Field(description="verdict.json to write")
    tables: Path = Field(description="folder to write: arms.csv, tests.csv")


class VerdictError(ValueError):
    """Results that cannot be compared; the message says which and what to do."""


@dataclass(frozen=True)
class Comparison:
    """One task's arms side by side; `tests` holds secondary p-values over images."""

    metric: str
    arms: dict[str, list[float]]
    seeds: list[int]
    control: str
    paired: "Paired"
    interval: "Interval"
    p: float
    tests: dict[str, float]


def run(config: Config) -> None:
    """Write `verdict.json`, the tables and `config.json`.

    Raises: `VerdictError` when an arm is missing or arms were tested on different images.
    """
    import pandas as pd

    from didgen.data.files import write_csv, write_json
    from didgen.metrics.statistics import holm

    comparisons = {}
    if config.classify is not None:
        runs = read_runs(config.classify, "predictions.csv", config.arms, config.seeds)
        comparisons["classification"] = classification(runs, config)
    if config.segment is not None:
        runs = read_runs(config.segment, "scores.csv", config.arms, config.seeds)
        comparisons["segmentation"] = segmentation(runs, config)
    if not comparisons:
        raise VerdictError("found neither --classify nor --segment, expected at least one of them")
    corrected = holm({task: found.p for task, found in comparisons.items()})
    tasks = {
        task: _entry(found, corrected[task], len(comparisons), config)
        for task, found in comparisons.items()
    }
    for task, entry in tasks.items():
        LOGGER.info("%s: %s", task, entry["sentence"])
    arms = [
        {"task": task, "metric": found.metric, "arm": arm, "seed": seed, "value": value}
        for task, found in comparisons.items()
        for arm, values in found.arms.items()
        for seed, value in zip(found.seeds, values, strict=True)
    ]
    tests = [
        {"task": task, "test": name, "p": p}
        for task, entry in tasks.items()
        for name, p in [(entry["test"], entry["p"]), *entry["other_tests"].items()]
    ]
    write_csv(config.tables / "arms.csv", pd.DataFrame(arms))
    write_csv(config.tables / "tests.csv", pd.DataFrame(tests))
    write_json(config.tables / "config.json", json.loads(config.model_dump_json()))
    write_json(config.out, {"run": config.run, "tasks": tasks})


def read_runs(
    folder: Path,
    name: str,
    arms: tuple[str, ...] | None = None,
    seeds: tuple[int, ...] | None = None,
) -> Runs:
    """The table `name` of the arms and seeds below `folder`, rows in the same order everywhere.

    Folders of other arms and seeds than those named, left by an earlier run, are passed over.

    Raises: `VerdictError` when no arm, no treatment, no control, other seeds or other images are
    found.
    """
    import pandas as pd

    runs: Runs = {}
    for path in sorted(folder.glob(f"*/seed*/{name}")):
        arm, match = path.parent.parent.name, re.fullmatch(r"seed(\d+)", path.parent.name)
        named = arms is None or arm in arms
        if match and named and (seeds is None or int(match[1]) in seeds):
            text = {"id": str, "lesion_id": str, "label": str, "prediction": str}
            table = pd.read_csv(path, dtype=text, keep_default_na=False)
            table = table.sort_values("id", ignore_index=True)
            runs.setdefault(arm, {})[int(match[1])] = table
    if TREATMENT not in runs or len(runs) < 2:
        raise VerdictError(
            f"{folder}: found arms {sorted(runs)}, expected {TREATMENT!r} and at least one "
            f"control with a {name} below <arm>/seed<number>; train them first"
        )
    # File names sort seed10 before seed2; seeds of two arms must meet in the same place.
    runs = {arm: dict(sorted(found.items())) for arm, found in runs.items()}
    there = {arm: list(found) for arm, found in runs.items()}
    if len({tuple(found) for found in there.values()}) > 1:
        raise VerdictError(f"{folder}: found seeds {there}, expected the same in every arm")
    first = next(iter(runs[TREATMENT].values()))
    for arm, found in runs.items():
        for seed, table in found.items():
            same = [c for c in ("id", "lesion_id", "label") if c in first]
            if table["id"].duplicated().any() or not table[same].equals(first[same]):
                raise VerdictError(
                    f"{folder}/{arm}/seed{seed}/{name}: other test images than in {TREATMENT}, "
                    "expected the same ids, lesions and labels; train the arms again"
                )
    return runs


def classification(runs: Runs, settings: Settings) -> Comparison:
    """Balanced accuracy of the arms; each image counts by the size of its class."""
    import numpy as np

    from didgen.metrics.statistics import mcnemar_exact

    scores = {
        arm: np.stack([(t["prediction"] == t["label"]).to_numpy(float) for t in tables.values()])
        for arm, tables in runs.items()
    }
    labels = next(iter(runs[TREATMENT].values()))["label"].to_numpy()
    found, control, paired = _compare(scores, runs, labels)
    # One answer an image: the mean of the seeds' probabilities, as an ensemble would give.
    voted = {arm: _ensemble(list(runs[arm].values())) == labels for arm in (TREATMENT, control)}
    tests = {
        "McNemar exact on the seeds' ensemble": mcnemar_exact(voted[TREATMENT], voted[control])
    }
    seeds = list(runs[TREATMENT])
    return _finish("balanced accuracy", found, seeds, control, paired, tests, settings)


def segmentation(runs: Runs, settings: Settings) -> Comparison:
    """Mean Dice of the arms over images."""
    import numpy as np

    from didgen.metrics.statistics import paired_t, wilcoxon

    scores = {
        arm: np.stack([t["dice"].to_numpy(float) for t in tables.values()])
        for arm, tables in runs.items()
    }
    everyone = np.zeros(next(iter(scores.values())).shape[1], int)
    found, control, paired = _compare(scores, runs, everyone)
    means = [paired.treatment.mean(0), paired.control.mean(0)]
    tests = {"paired t over images": paired_t(*means), "Wilcoxon over images": wilcoxon(*means)}
    seeds = list(runs[TREATMENT])
    return _finish("Dice", found, seeds, control, paired, tests, settings)


def _compare(
    scores: dict[str, Any], runs: Runs, groups: Any
) -> tuple[dict[str, list[float]], str, "Paired"]:
    """Every arm's metric for each seed, the best control, and treatment against that control."""
    from didgen.metrics.statistics import Paired

    table = next(iter(runs[TREATMENT].values()))
    # Photographs of one patient resemble each other more than those of two, as do those of one
    # lesion: only patients (where unknown lesions, where unknown images) count as independent.
    clusters = table["id"]
    for column in ("lesion_id", "patient_id"):
        if column in table:
            clusters = table[column].where(table[column] != "", clusters)
    clusters = clusters.to_numpy()
    pairs = {arm: Paired(scores[TREATMENT], scores[arm], clusters, groups) for arm in scores}
    found = {arm: pair.per_seed(scores[arm]).tolist() for arm, pair in pairs.items()}
    controls = [arm for arm in found if arm != TREATMENT]
    control = max(controls, key=lambda arm: sum(found[arm]))
    return found, control, pairs[control]


def _finish(
    metric: str, arms: dict[str, list[float]], seeds: list[int], control: str, paired: "Paired",
    tests: dict[str, float], settings: Settings,
) -> Comparison:  # fmt: skip
    from didgen.metrics.statistics import clustered_bootstrap, sign_flip_test

    interval = clustered_bootstrap(paired, settings.confidence, settings.resamples, settings.seed)
    p = sign_flip_test(paired, settings.resamples, settings.seed)
    return Comparison(metric, arms, seeds, control, paired, interval, p, tests)


def _ensemble(tables: list["pd.DataFrame"]) -> Any:
    import numpy as np

    columns = [c for c in tables[0].columns if c.startswith("p_")]
    mean = np.mean([table[columns].to_numpy(float) for table in tables], axis=0)
    return np.array([c.removeprefix("p_") for c in columns])[mean.argmax(1)]


def _entry(found: Comparison, p: float, n_tests: int, config: Config) -> dict[str, Any]:
    import numpy as np

    from didgen.metrics.statistics import decide, sentence

    n_seeds, n_test = found.paired.treatment.shape
    alpha = 1 - config.confidence
    verdict = decide(found.interval, p, n_seeds, alpha, config.margin)
    return {
        "metric": found.metric,
        "arms": {
            arm: {
                "mean": float(np.mean(values)),
                "sd": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
                "per_seed": values,
            }
            for arm, values in found.arms.items()
        },
        "best_control": found.control,
        "difference": found.interval.difference,
        "interval": [found.interval.low, found.interval.high],
        "confidence": config.confidence,
        "p": p,
        "p_uncorrected": found.p,
        "test": "sign-flip randomization over patients or lesions, two-sided, "
        f"Holm-corrected for {n_tests}",
        "other_tests": found.tests,
        "margin": config.margin,
        "n_test": n_test,
        "n_clusters": len(np.unique(found.paired.clusters)),
        "n_seeds": n_seeds,
        "verdict": verdict,
        "sentence": sentence(
            verdict, found.metric, found.interval, found.control, p, n_seeds, n_test, alpha
        ),
    }
