"""Is the verdict reliable? Arms whose truth is built in: two that cannot help and one that must.

Every repetition draws new phantoms: few real training images, validation and test images, and a
pool of others. Three "synthetic" sets are made from them: `copies` (exact duplicates of the real
images under new names), `relabelled` (pool images, their labels or masks shuffled) and
`informative` (pool images as they are). Each is as large as the others. The classifier or segmenter
is trained on each, on the real images alone and on count-matched duplicates, with the same seeds,
and the verdict stage compares them as in a run.

Asked: neither null arm is called helpful in at least 19 of 20 repetitions, and the informative one
is found. Trainings are kept in --out and not repeated; the verdict is reached anew each time.

Run: python -m benchmarks.null_arms --repetitions 20 --jobs 1
     python -m benchmarks.null_arms --repetitions 20 --jobs 1 --task segmentation
"""

import argparse
import hashlib
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

# Before numpy: each job has one core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from PIL import Image  # noqa: E402

from didgen.data.manifest import write_manifest  # noqa: E402
from didgen.data.phantoms import cohort, render  # noqa: E402
from didgen.runtime.files import read_json, write_csv  # noqa: E402

CLASSES = ("NV", "BCC", "VASC")
NULL = ("copies", "relabelled")
SETS = (*NULL, "informative")
CONTROLS = ("original", "duplicates")
# Far from the seeds of the cohorts that the tiny backbone or a run's data are drawn from.
FIRST_SEED = 2 * 10**9


@dataclass(frozen=True)
class Plan:
    """How much is drawn and trained; `real` and `added` count images of all classes together."""

    task: str
    real: int
    added: int
    val: int
    test: int
    side: int
    seeds: int
    steps: int
    out: Path

    @property
    def key(self) -> str:
        """Names what is kept: a repetition under other settings is another one."""
        values = "/".join(str(value) for name, value in vars(self).items() if name != "out")
        return hashlib.sha256(values.encode()).hexdigest()[:8]

    @property
    def stage(self) -> str:
        """The stage that trains."""
        return "classify" if self.task == "classification" else "segment"


def draw(plan: Plan, repetition: int, folder: Path) -> dict[str, Path]:
    """Write the manifests of one repetition: train, val, test and the three sets."""
    sizes = {"train": plan.real, "pool": plan.added, "val": plan.val, "test": plan.test}
    paths, frames = {}, {}
    for offset, (name, count) in enumerate(sizes.items()):
        specs = cohort(count, CLASSES, seed=FIRST_SEED + 10 * repetition + offset)
        rows = []
        for spec in specs:
            own = f"{name}_{spec.id}"
            drawn = render(spec, size=plan.side)
            for kind, pixels in (("images", drawn.image), ("masks", drawn.mask)):
                path = folder / kind / f"{own}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                # Thousands of small files: flushing each to the disk would take longest of all.
                Image.fromarray(pixels.astype(np.uint8) * (255 if kind == "masks" else 1)).save(
                    path
                )
            rows.append({
                "id": own, "image": f"images/{own}.png", "mask": f"masks/{own}.png",
                "label": spec.label, "split": name if name != "pool" else "train",
                "lesion_id": f"{name}_{spec.lesion_id}", "patient_id": f"{name}_{spec.patient_id}",
                "source": "phantom", "width": plan.side, "height": plan.side, "sha256": "",
            })  # fmt: skip
        frames[name] = pd.DataFrame(rows)
    rng = np.random.default_rng([repetition, 11])
    frames |= synthetic_sets(frames["train"], frames.pop("pool"), rng)
    # No two rows of a manifest may share a file.
    copies = frames["copies"]
    for column in ("image", "mask"):
        own = [f"{column}s/{name}.png" for name in copies["id"]]
        for old, new in zip(copies[column], own, strict=True):
            shutil.copyfile(folder / old, folder / new)
        copies[column] = own
    for name, frame in frames.items():
        paths[name] = folder / f"{name}.csv"
        write_manifest(frame, paths[name])
    return paths


def synthetic_sets(
    train: pd.DataFrame, pool: pd.DataFrame, rng: np.random.Generator
) -> dict[str, pd.DataFrame]:
    """The three sets, each with as many rows as the pool and new ids, lesions and patients."""
    again = np.resize(rng.permutation(len(train)), len(pool))
    copies = train.iloc[again].reset_index(drop=True)
    copies["id"] = [f"copy_{k}" for k in range(len(copies))]
    # Shuffled, not made up: labels and masks are as frequent as before.
    dealt = rng.permutation(len(pool))
    relabelled = pool.assign(
        id=[f"relabelled_{k}" for k in range(len(pool))],
        label=pool["label"].to_numpy()[dealt],
        mask=pool["mask"].to_numpy()[dealt],
    )
    informative = pool.assign(id=[f"informative_{k}" for k in range(len(pool))])
    made = {"copies": copies, "relabelled": relabelled, "informative": informative}
    return {
        name: frame.assign(
            lesion_id="",
            patient_id="",
            source="synthetic",
            split="train",
            method=name,
            seed="0",
            caption="",
            parent_ids="",
            checkpoint="",
        )  # fmt: skip
        for name, frame in made.items()
    }


def repeat(plan: Plan, repetition: int) -> dict[str, Any]:
    """One repetition: draw, train every arm with every seed, compare; what the verdict says."""
    import torch

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    folder = plan.out / f"{plan.task}-{plan.key}-{repetition:03d}"
    started = time.perf_counter()
    train_missing(plan, repetition, folder, (*CONTROLS, *SETS))
    from didgen.stages import verdict

    verdict.run(
        verdict.Config(
            run=f"null-{repetition}",
            treatment="informative",
            resamples=200,
            out=folder / "verdict.json",
            tables=folder / "verdict",
            **{plan.stage: folder / plan.stage},
        )  # fmt: skip
    )
    task = read_json(folder / "verdict.json")["tasks"][plan.task]
    result = {
        "repetition": repetition,
        "seconds": round(time.perf_counter() - started, 1),
        "control": task["control"],
        "metric": task["metric"],
        "arms": {arm: own["mean"] for arm, own in task["arms"].items()},
        "verdicts": {
            each["arm"]: {
                "verdict": each["verdict"],
                "difference": each["difference"],
                "low": each["interval"][0],
                "high": each["interval"][1],
                "p": each["p"],
            }
            for each in task["comparisons"]["control"]
        },
    }
    return result


def train_missing(plan: Plan, repetition: int, folder: Path, arms: Sequence[str]) -> None:
    """Train what is not there yet; the data are drawn again where anything is missing."""
    places = {
        (arm, seed): folder / plan.stage / arm / f"seed{seed}"
        for arm in arms
        for seed in range(plan.seeds)
    }
    missing = {key: at for key, at in places.items() if not (at / "metrics.json").is_file()}
    if missing:
        data = draw(plan, repetition, folder / "data")
        for (arm, seed), at in missing.items():
            fit(plan, data, arm, seed, at)


def fit(plan: Plan, data: dict[str, Path], arm: str, seed: int, out: Path) -> None:
    """Train and test one arm; duplicates repeat the real images as often as a set has images."""
    from didgen.stages import classify, segment

    shared = dict(
        train=data["train"], val=data["val"], test=data["test"], arm=arm, seed=seed, out=out,
        steps=plan.steps, eval_every=max(10, plan.steps // 6), precision="float32",
        synthetic=None if arm == "original" else data.get(arm, data["informative"]),
    )  # fmt: skip
    if plan.task == "classification":
        classify.run(classify.Config(model="test_resnet", learning_rate=2e-3, **shared))
    else:
        segment.run(segment.Config(decoder_channels=(32, 16, 16, 8, 8), **shared))


def main() -> None:
    """Run the repetitions and print how often each arm is called what."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="number of the first repetition")
    parser.add_argument("--jobs", type=int, default=2, help="repetitions at a time, a core each")
    parser.add_argument("--task", choices=("classification", "segmentation"),
                        default="classification")  # fmt: skip
    parser.add_argument("--real", type=int, default=15)
    parser.add_argument("--added", type=int, default=240)
    parser.add_argument("--val", type=int, default=60)
    parser.add_argument("--test", type=int, default=240)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("results/null-arms"))
    given = vars(parser.parse_args())
    first, count, jobs = (given.pop(key) for key in ("first", "repetitions", "jobs"))
    plan = Plan(**given)
    started = time.perf_counter()
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        waiting = [pool.submit(repeat, plan, k) for k in range(first, first + count)]
        results = []
        for future in waiting:
            results.append(future.result())
            print(line(results[-1]), flush=True)
    print(f"\n{count} repetitions in {(time.perf_counter() - started) / 60:.1f} min")
    print(summary(results))
    rows = [
        {"repetition": each["repetition"], "control": each["control"], "arm": arm} | own
        for each in results
        for arm, own in each["verdicts"].items()
    ]
    write_csv(plan.out / f"{plan.task}.csv", pd.DataFrame(rows))


def line(result: dict[str, Any]) -> str:
    """One repetition in a line."""
    answers = ", ".join(
        f"{arm}: {own['verdict']} ({own['difference']:+.3f} [{own['low']:.3f}, {own['high']:.3f}])"
        for arm, own in result["verdicts"].items()
    )
    head = f"{result['repetition']:3d} ({result['seconds']:.0f} s)"
    return f"{head} against {result['control']}: {answers}"


def summary(results: list[dict[str, Any]]) -> str:
    """How often each arm is called what, and whether that is what was asked."""
    lines = []
    for arm in SETS:
        counts = Counter(each["verdicts"][arm]["verdict"] for each in results)
        answers = ", ".join(
            f"{counts[answer]} {answer}"
            for answer in ("helps", "equivalent", "inconclusive", "hurts")
        )
        lines.append(f"{arm}: {answers}")
    count, allowed = len(results), len(results) // 20
    helped = {
        arm: sum(each["verdicts"][arm]["verdict"] == "helps" for each in results) for arm in SETS
    }
    for arm in NULL:
        outcome = "met" if helped[arm] <= allowed else "NOT met"
        lines.append(
            f"null arm {arm}: {count - helped[arm]} of {count} not called helpful "
            f"(asked: at least {count - allowed}): {outcome}"
        )
    detected = helped["informative"]
    lines.append(f"informative arm: found to help in {detected} of {count}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
