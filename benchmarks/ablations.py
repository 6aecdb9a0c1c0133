"""What each guidance term does: L_SA against failed masks, L_CA for diversity (Section 3.4).

    python -m benchmarks.ablations results/demo [--masks 8] [--seeds 6]

The same masks and seeds are sampled with both terms, without L_SA, without L_CA and with neither;
the other settings are those of the run's pairs. Per variant: how often thresholding fails (no
usable mask; a mask unlike its condition; a mask unlike what the run's segmenter, trained on real
images alone, finds), and how much images of one mask and many seeds differ, as distance in the
features of EfficientNet-Lite0 (ImageNet). Writes RUN/ablations/ablations.json and .png.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from didgen.attention.panels import draw_contour
from didgen.backbone.handle import Backbone
from didgen.downstream.augmentation import to_float
from didgen.downstream.feature_spaces import Lite0Features
from didgen.downstream.segmenters import load_segmenter
from didgen.methods.didgen.sampler import DidgenSynthesizer
from didgen.methods.protocol import Request, Sample, derive_seed
from didgen.metrics.perceptual import mean_pairwise_distance
from didgen.metrics.segmentation import iou
from didgen.report.sheet import Tile, contact_sheet
from didgen.runtime.files import write_json, write_png
from didgen.runtime.precision import default_device
from didgen.settings.pairs import Config as PairsConfig
from didgen.settings.pairs import Settings as PairSettings
from didgen.stages import pairs

# Weights of L_CA and L_SA.
VARIANTS = {
    "L_CA + L_SA": (1.0, 1.0),
    "L_CA alone": (1.0, 0.0),
    "L_SA alone": (0.0, 1.0),
    "no guidance": None,
}
BAD_IOU = 0.5


def settings_of(run: Path) -> PairsConfig:
    """The settings of the run's pairs, with paths into the run wherever it lies now."""
    configs = sorted(run.glob("pairs/*/config.json"))
    if not configs:
        raise ValueError(f"{run}: no pairs/*/config.json; run the pairs stage first")
    saved = json.loads(configs[0].read_text())
    known = {name: saved[name] for name in PairSettings.model_fields if name in saved}
    return PairsConfig(
        **known, train=run / "data/train.csv", captions=run / "caption/captions.csv",
        model=run / "finetune", classes=saved.get("classes"), seed=saved["seed"], out=run,
    )  # fmt: skip


def requests_of(config: PairsConfig, masks: int, seeds: int) -> list[Request]:
    """The first `masks` pairs of the run, each with `seeds` seeds, mask by mask."""
    first = pairs.PairRequests(config.model_copy(update={"count": masks}))
    return [
        replace(request, seed=derive_seed("ablations", request.seed, turn))
        for request in first
        for turn in range(seeds)
    ]


def synthesize(
    backbone: Backbone, config: PairsConfig, weights: tuple[float, float] | None,
    requests: list[Request],
) -> list[Sample]:  # fmt: skip
    """Sample all requests with these weights of the two terms; None: unguided."""
    change = (
        {"eta": 0.0}
        if weights is None
        else dict(zip(("cross_weight", "self_weight"), weights, strict=True))
    )
    synthesizer = DidgenSynthesizer(backbone, config.model_copy(update=change))
    size = config.batch_size
    return [
        sample
        for start in range(0, len(requests), size)
        for sample in synthesizer.synthesize(requests[start : start + size])
    ]


def failures(samples: list[Sample], segmenter: Any) -> dict[str, Any]:
    """How often the threshold failed, and how well masks and conditions agree."""
    failed = np.array([bool(sample.failure) for sample in samples])
    annotated = np.stack([sample.mask for sample in samples])
    wanted = np.stack([sample.request.mask for sample in samples])
    layout = np.where(failed, 0.0, iou(annotated, wanted))
    rates = {
        "n": len(samples),
        "unusable": float(failed.mean()),
        "unlike_condition": float((layout < BAD_IOU).mean()),
        "layout_iou": float(layout.mean()),
        "contrast": float(np.mean([sample.scores.get("contrast", 0.0) for sample in samples])),
    }
    if segmenter is not None:
        model, card = segmenter
        images = torch.from_numpy(np.stack([sample.image for sample in samples]))
        images = to_float(images.permute(0, 3, 1, 2))
        if images.shape[-1] != card.image_size:
            raise ValueError(
                f"found images of {images.shape[-1]} px and a segmenter of {card.image_size} px, "
                "expected one size; leave it out with --no-segmenter"
            )
        with torch.inference_mode():
            seen = torch.cat([model(part)[:, 0] > 0 for part in images.split(32)]).numpy()
        agreement = np.where(failed, 0.0, iou(annotated, seen))
        rates |= {
            "unlike_segmenter": float((agreement < BAD_IOU).mean()),
            "segmenter_iou": float(agreement.mean()),
        }
    return rates


def diversity(samples: list[Sample], seeds: int) -> dict[str, Any]:
    """Mean distance of the images of one mask, over masks; failed images are left out."""
    network, values = Lite0Features(), []
    for start in range(0, len(samples), seeds):
        group = [s.image for s in samples[start : start + seeds] if "diverged" not in s.failure]
        if len(group) < 2:
            continue
        images = torch.from_numpy(np.stack(group)).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.inference_mode():
            values.append(mean_pairwise_distance(network(images)))
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    mean = float(np.mean(values)) if values else None
    return {"mean": mean, "sd": sd, "per_mask": values}


def figure(made: dict[str, list[Sample]], seeds: int, shown: int = 3) -> np.ndarray:
    """For the first masks: the condition and, a row a variant, the images with their outlines."""
    tiles = []
    for start in range(0, min(shown * seeds, len(next(iter(made.values())))), seeds):
        for name, samples in made.items():
            group = samples[start : start + seeds]
            condition = np.where(group[0].request.mask[..., None], 150, 40).astype(np.uint8)
            tiles.append(Tile(condition.repeat(3, axis=2), (name,)))
            for sample in group:
                picture = draw_contour(sample.image, sample.mask)
                tiles.append(Tile(picture, ("failed" if sample.failure else "",)))
    return contact_sheet(tiles, seeds + 1)


def main() -> None:
    """Run all variants, print a table, write the figure and the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--masks", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=6, help="images of each mask, at least 2")
    parser.add_argument("--steps", type=int, help="sampling steps; default: the run's")
    parser.add_argument("--no-segmenter", action="store_true")
    parser.add_argument("--out", type=Path, help="default: RUN/ablations")
    given = parser.parse_args()
    config = settings_of(given.run)
    if given.steps:
        config = config.model_copy(update={"steps": given.steps})
    weights = sorted(given.run.glob("segment/original/seed*/segmenter.safetensors"))
    segmenter = load_segmenter(weights[0]) if weights and not given.no_segmenter else None
    requests = requests_of(config, given.masks, given.seeds)
    backbone = Backbone.load(config.model, device=default_device())
    made = {name: synthesize(backbone, config, w, requests) for name, w in VARIANTS.items()}
    variants = {
        name: failures(samples, segmenter) | {"diversity": diversity(samples, given.seeds)}
        for name, samples in made.items()
    }
    for name, row in variants.items():
        numbers = {k: v for k, v in row.items() if isinstance(v, float)}
        spread = row["diversity"]["mean"]
        print(f"{name:12}", *(f"{k} {v:.3f}" for k, v in numbers.items()), f"diversity {spread}")
    out = given.out or given.run / "ablations"
    results = {"masks": given.masks, "seeds": given.seeds, "bad_iou": BAD_IOU, "variants": variants}
    results["settings"] = config.model_dump(mode="json", include=set(PairSettings.model_fields))
    results["distance"] = "features of EfficientNet-Lite0 (ImageNet), unweighted; not LPIPS"
    write_json(out / "ablations.json", results)
    write_png(out / "ablations.png", figure(made, given.seeds))


if __name__ == "__main__":
    main()
