"""A grid of step sizes for the guided rivals, so that each is compared at its best.

    python -m benchmarks.rival_guidance results/demo [--pairs 24] [--judge-steps 200]
        [--methods zestguide attention_refocusing didgen controlnet] [--csv FILE]

Makes the first pairs of a finished run again, once for each point of a method's grid: same seeds,
prompts and condition masks, and the sampling of the run's `pairs` section. Point by point:

    cost      processor time over that of unguided sampling
    layout    IoU of the condition mask with what a judge of real images alone segments
    low high  its 95 % bootstrap interval over pairs
    failed    samples that diverged

`didgen` is the run's own setting, for reference; its cost has the annotation in it. `controlnet`
has no grid: it is the run's, if one was trained (`methods/controlnet/model`). Condition masks are
those of training images, so that choosing by `layout` takes nothing from the test images.
"""

import argparse
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.guidance_quality import (
    judged_masks,
    make,
    requests_of,
    run_settings,
    train_judge,
    with_interval,
)
from didgen.methods.didgen.sampler import DiffusionSynthesizer
from didgen.methods.protocol import Sample, Synthesizer, load_method
from didgen.metrics.segmentation import iou
from didgen.runtime.precision import default_device
from didgen.runtime.reproducible import reproducible
from didgen.settings.methods import DIDGEN
from didgen.settings.pairs import Config, RivalConfig

UNGUIDED = {"zestguide": {"step_size": 0.0}}
GRIDS: dict[str, dict[str, Sequence[object]]] = {
    "zestguide": {"step_size": (0.1, 0.3, 1.0), "guided_fraction": (0.5, 0.7)},
    "attention_refocusing": {"variant": ("mask", "box"), "loss_scale": (4.0, 40.0, 120.0)},
    "controlnet": {},
    DIDGEN: {},
}


def points(grid: dict[str, Sequence[object]]) -> list[dict[str, object]]:
    """Every combination of a grid's values; of an empty grid the defaults."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def opened(run: Path, method: str, own: dict[str, object]) -> Synthesizer:
    """A method with its settings, sampling as the run's pairs."""
    tuned = run / "finetune"
    model = run / "methods/controlnet/model" if method == "controlnet" else tuned
    values = {**run_settings(run), "model": model, "backbone": tuned, "out": run / "unused"}
    values |= {"train": run / "data/train.csv", "captions": run / "caption/captions.csv"}
    kind: Callable[..., object] = Config if method == DIDGEN else RivalConfig
    # The requests bring their masks.
    settings = {} if method == DIDGEN else {"own": {"conditions": "training", **own}}
    config = kind(method=method, **values, **settings)
    return load_method(method).load(model, config, str(default_device()))


def scores_of(samples: Sequence[Sample], judge: torch.nn.Module) -> dict[str, float]:
    """The row of a point but for its cost."""
    judged = judged_masks(samples, judge)
    # A mask that annotation could not read is no fault of the image.
    sound = np.array([not sample.failure.startswith("diverged") for sample in samples])
    layout = iou(judged, np.stack([sample.request.mask for sample in samples])) * sound
    return {**with_interval("layout", layout), "failed": int((~sound).sum())}


def main() -> None:
    """Print, and on request write, the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--judge-steps", type=int, default=200)
    parser.add_argument("--methods", nargs="+", choices=list(GRIDS), default=list(GRIDS)[:2])
    parser.add_argument("--csv", type=Path)
    given = parser.parse_args()
    plans = [("zestguide", UNGUIDED["zestguide"])]
    plans += [(method, point) for method in given.methods for point in points(GRIDS[method])]
    judge = train_judge(given.run, given.judge_steps)
    rows = []
    with reproducible(default_device()):
        first = opened(given.run, *plans[0])
        assert isinstance(first, DiffusionSynthesizer)
        requests = requests_of(given.run, first.backbone, given.pairs)
        make(first, requests[: given.batch], given.batch)  # warm-up
        for method, point in plans:
            samples, seconds = make(opened(given.run, method, point), requests, given.batch)
            base = rows[0]["seconds"] if rows else seconds
            scores = {"cost": seconds / base, "seconds": seconds, **scores_of(samples, judge)}
            rows.append({"method": method, "point": str(point), **scores})
            shown = pd.DataFrame(rows[-1:]).round(3)
            print(shown.to_string(index=False, header=len(rows) == 1), flush=True)
    if given.csv:
        pd.DataFrame(rows).to_csv(given.csv, index=False)


if __name__ == "__main__":
    main()
