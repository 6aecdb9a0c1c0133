"""What the cheaper kinds of guidance, and other readings of the mask, cost in quality.

    python -m benchmarks.guidance_quality results/demo [--pairs 24] [--judge-steps 200]
        [--variants unguided default down ...] [--csv FILE]

Makes the first pairs of a finished run again, once for each variant: same seeds, prompts and
condition masks, settings of the run's `pairs` section but for the variant's own. A judge is
trained on the run's real images alone; it segments the synthetic ones. Printed for each variant:

    cost      processor time, guided sampling and annotation, over that of the unguided variant
    mask      IoU of the annotated mask and the judge's
    layout    IoU of the judge's mask and the condition mask
    asked     IoU of the annotated mask and the condition mask
    failed    samples that gave no usable mask, or diverged

IoUs are means over all pairs (a failed one has 0), with a 95 % bootstrap interval for the first.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from didgen.backbone.handle import Backbone
from didgen.data.images import read_mask
from didgen.downstream.augmentation import to_float
from didgen.downstream.datasets import build, usable_rows
from didgen.downstream.segmenters import build_segmenter, segmentation_loss
from didgen.downstream.training import seeded, train
from didgen.methods.didgen.sampler import DidgenSynthesizer
from didgen.methods.protocol import Request, Sample, Synthesizer
from didgen.metrics.segmentation import dice, iou
from didgen.runtime.precision import default_device
from didgen.settings.pairs import Settings as PairSettings
from didgen.settings.schedule import Schedule
from didgen.settings.segment import Settings as SegmentSettings

VARIANTS: dict[str, dict[str, object]] = {
    "unguided": {"eta": 0.0},
    "default": {},
    "each-step": {"guide_every": 1, "reuse_prediction": False},
    "to-coarse": {"guide_layers": "to-coarse", "guide_every": 1, "reuse_prediction": False},
    "down": {"guide_layers": "down", "guide_every": 1, "reuse_prediction": False},
    "every-2": {"guide_every": 2, "reuse_prediction": False},
    "every-3": {"guide_every": 3, "reuse_prediction": False},
    "down-every-2": {"guide_layers": "down", "guide_every": 2, "reuse_prediction": False},
    "reuse": {"reuse_prediction": True, "guide_every": 1},
    "to-coarse-reuse": {"guide_layers": "to-coarse", "reuse_prediction": True, "guide_every": 1},
    "down-reuse": {"guide_layers": "down", "reuse_prediction": True, "guide_every": 1},
    "raw": {"reading": "raw"},
    "ratio": {"reading": "foreground-background"},
    "mean-in-5": {"self_normalization": "mean"},
    "sum-in-3": {"cross_normalization": "sum"},
    "sqrt-linear": {"schedule": "sqrt-linear"},
    "no-L_SA": {"self_weight": 0.0},
    "no-L_CA": {"cross_weight": 0.0},
    "guided-filter": {"upsampling": "guided-filter"},
    "last-3": {"last_steps": 3},
    "last-5": {"last_steps": 5},
}


def requests_of(run: Path, backbone: Backbone, count: int) -> list[Request]:
    """The first pairs of a run, as they were asked for."""
    folders = sorted(path.parent for path in (run / "pairs").glob("*/metadata.csv"))
    parts = [
        pd.read_csv(folder / "metadata.csv", keep_default_na=False).assign(folder=str(folder))
        for folder in folders
    ]
    if not parts:
        raise SystemExit(f"{run}/pairs has no metadata.csv; make the run first")
    rows = pd.concat(parts).sort_values("id").head(count)
    return [
        Request(
            id=row.id,
            label=row.label,
            caption=row.caption,
            seed=int(row.seed),
            mask=read_mask(Path(row.folder) / row.condition),
        )
        for row in rows.itertuples()
    ]


def run_settings(run: Path) -> dict[str, object]:
    """The run's own settings of sampling."""
    path = next((run / "pairs").glob("*/config.json"))
    known = PairSettings.model_fields
    return {k: v for k, v in json.loads(path.read_text()).items() if k in known}


def train_judge(run: Path, steps: int) -> torch.nn.Module:
    """A segmenter of the run's real training images."""
    sets = {s: build(usable_rows(run / f"data/{s}.csv", "mask")[0], None) for s in ("train", "val")}
    with seeded(0):
        size, channels = sets["train"].image_size, SegmentSettings().decoder_channels
        built = build_segmenter(
            "efficientnet_lite0", size, channels, pretrained=True, model="unet", weights=None
        )
    true = sets["val"].masks.read(np.arange(len(sets["val"]))).astype(bool)

    def score(outputs: np.ndarray, data: object) -> float:
        return float(dice(outputs[:, 0] > 0, true).mean())

    schedule = Schedule(steps=steps)
    train(built.model, sets["train"], sets["val"], segmentation_loss, score, schedule, 0)
    return built.model.eval()


def make(
    synthesizer: Synthesizer, requests: Sequence[Request], batch: int
) -> tuple[list[Sample], float]:
    """The samples of all requests, and processor seconds."""
    start, samples = time.process_time(), []
    for first in range(0, len(requests), batch):
        samples += synthesizer.synthesize(requests[first : first + batch])
    return samples, time.process_time() - start


def judged_masks(samples: Sequence[Sample], judge: torch.nn.Module) -> np.ndarray:
    """Where the judge sees a lesion in each sample, bool (N, H, W)."""
    images = torch.from_numpy(np.stack([sample.image for sample in samples])).permute(0, 3, 1, 2)
    parts = to_float(images).to(default_device()).split(32)
    with torch.inference_mode():
        return torch.cat([judge(part)[:, 0] > 0 for part in parts]).cpu().numpy()


def with_interval(name: str, values: np.ndarray) -> dict[str, float]:
    """The mean of values (N,) under a name, and its 95 % bootstrap interval, `low` to `high`."""
    draws = np.random.default_rng(0).integers(0, len(values), (2000, len(values)))
    low, high = np.quantile(values[draws].mean(1), [0.025, 0.975])
    return {name: float(values.mean()), "low": float(low), "high": float(high)}


def scores_of(samples: Sequence[Sample], judge: torch.nn.Module) -> dict[str, float]:
    """The row of a variant but for its cost."""
    judged = judged_masks(samples, judge)
    sound = np.array([not sample.failure for sample in samples])
    annotated = np.stack([sample.mask for sample in samples])
    asked = np.stack([sample.request.mask for sample in samples])
    return {
        **with_interval("mask", iou(annotated, judged) * sound),
        "layout": float((iou(judged, asked) * sound).mean()),
        "asked": float((iou(annotated, asked) * sound).mean()),
        "failed": int((~sound).sum()),
    }


def main() -> None:
    """Print, and on request write, the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, help="sampling steps instead of the run's")
    parser.add_argument("--eta", type=float, help="eta instead of the run's")
    parser.add_argument("--judge-steps", type=int, default=200)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--csv", type=Path)
    given = parser.parse_args()
    backbone = Backbone.load(given.run / "finetune", device=default_device())
    requests = requests_of(given.run, backbone, given.pairs)
    settings = run_settings(given.run)
    for name in ("steps", "eta"):
        if getattr(given, name) is not None:
            settings[name] = getattr(given, name)
    judge = train_judge(given.run, given.judge_steps)
    warm_up = DidgenSynthesizer(backbone, PairSettings(**{**settings, "steps": 5}))
    make(warm_up, requests[: given.batch], given.batch)
    rows: dict[str, dict[str, float]] = {}
    for name in ["unguided", *[n for n in given.variants if n != "unguided"]]:
        synthesizer = DidgenSynthesizer(backbone, PairSettings(**{**settings, **VARIANTS[name]}))
        samples, seconds = make(synthesizer, requests, given.batch)
        base = rows["unguided"]["seconds"] if rows else seconds
        rows[name] = {"cost": seconds / base, "seconds": seconds, **scores_of(samples, judge)}
        print(pd.DataFrame([rows[name]], index=[name]).round(3).to_string(header=len(rows) == 1))
    table = pd.DataFrame.from_dict(rows, orient="index")
    print(f"\n{len(requests)} pairs, settings of the run: {settings}\n")
    print(table.round(3).to_string())
    if given.csv:
        table.to_csv(given.csv, index_label="variant")


if __name__ == "__main__":
    main()
