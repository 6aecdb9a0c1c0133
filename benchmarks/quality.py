"""How good a run's generator is: classes recognised, attention maps, pairs.

    python -m benchmarks.quality results/demo [--without results/no-attention/maps/maps.json]

Prints (1) how often a classifier trained on the run's real images sees, in a synthetic image, the
class that was asked for, beside its accuracy on real test images; (2) IoU of the `<lesion>` maps
with the true masks of held-out images, and the same of a run without L_attn; (3) IoU of the
annotated masks with their condition masks, and with a segmenter trained on real images alone.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from didgen.downstream.classifiers import build_classifier, classification_loss
from didgen.downstream.datasets import build, class_codes, usable_rows
from didgen.downstream.segmenters import build_segmenter, segmentation_loss
from didgen.downstream.training import predict, seeded, train
from didgen.metrics.classification import balanced_accuracy
from didgen.metrics.segmentation import dice, iou
from didgen.runtime.precision import default_device
from didgen.settings.schedule import Schedule
from didgen.settings.segment import Settings as SegmentSettings


def sets_of(run: Path, need: str, more: dict[str, Path] | None = None) -> tuple[dict, list | None]:
    """The image sets of a run: its three splits, its synthetic images as "made", and more."""
    paths = {split: run / f"data/{split}.csv" for split in ("train", "val", "test")}
    paths |= {"made": run / "augment/metadata.csv", **(more or {})}
    frames = {name: usable_rows(path, need)[0] for name, path in paths.items()}
    if need == "label":
        made = frames["made"]
        # Only images from text alone: a pair's mask might give its class away.
        frames["made"] = made[made["mask"].isna()]
        classes = class_codes([frames[split] for split in ("train", "val", "test")])
        return {k: build(frame, None, classes) for k, frame in frames.items()}, classes
    return {k: build(frame, None) for k, frame in frames.items()}, frames["made"]


def recognised(run: Path, steps: int, more: dict[str, Path] | None = None) -> pd.DataFrame:
    """Recall of each class on real test images, on synthetic images from text, and on more."""
    sets, classes = sets_of(run, "label", more)
    with seeded(0):
        built = build_classifier(
            "efficientnet_lite0",
            len(classes),
            sets["train"].image_size,
            pretrained=True,
            weights=None,
        )
    schedule = Schedule(steps=steps)

    def score(outputs: np.ndarray, data) -> float:
        return balanced_accuracy(data.labels, outputs.argmax(1))

    train(built.model, sets["train"], sets["val"], classification_loss, score, schedule, 0)
    rows = {}
    for name in ("test", "made", *(more or {})):
        guess = predict(built.model, sets[name], default_device(), precision="float32").argmax(1)
        true = np.asarray(sets[name].labels)
        rows[name] = {code: (guess[true == i] == i).mean() if (true == i).any() else np.nan
                      for i, code in enumerate(classes)}  # fmt: skip
    table = pd.DataFrame(rows)
    table.loc["mean"] = table.mean()
    return table


def pairs(run: Path, steps: int) -> dict[str, float]:
    """IoU of annotated masks with their conditions, and with a segmenter of real images only."""
    sets, made = sets_of(run, "mask")
    with seeded(0):
        size, channels = sets["train"].image_size, SegmentSettings().decoder_channels
        built = build_segmenter(
            "efficientnet_lite0", size, channels, pretrained=True, model="unet", weights=None
        )

    def score(outputs: np.ndarray, data) -> float:
        return float(dice(outputs[:, 0] > 0, masks_of(data)).mean())

    schedule = Schedule(steps=steps)
    train(built.model, sets["train"], sets["val"], segmentation_loss, score, schedule, 0)
    overlap = {}
    for name in ("test", "made"):
        outputs = predict(built.model, sets[name], default_device(), precision="float32")
        overlap[name] = float(iou(outputs[:, 0] > 0, masks_of(sets[name])).mean())
    return {
        "annotated mask vs condition": float(made["layout_iou"].astype(float).mean()),
        "annotated mask vs segmenter trained on real images": overlap["made"],
        "that segmenter on real test images": overlap["test"],
    }


def masks_of(data) -> np.ndarray:
    """The true masks of an image set, bool (N, H, W)."""
    return data.masks.read(np.arange(len(data))).astype(bool)


def main() -> None:
    """Print the three measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--without", type=Path, help="maps.json of a run without L_attn")
    parser.add_argument("--steps", type=int, default=200, help="steps of the two judges")
    given = parser.parse_args()
    print("Recall of a classifier trained on real images (test: real, made: from text alone)")
    print(recognised(given.run, given.steps).round(3).to_string())
    for name, path in (("with", given.run / "maps/maps.json"), ("without", given.without)):
        if path is not None:
            maps = json.loads(path.read_text())
            print(f"<lesion> maps {name} L_attn: IoU {maps['lesion_iou_mean']:.3f}")
            print(f"  Eq. 7 on real images: {maps['annotated_iou_mean']:.3f}, n {maps['n']}")
    for name, value in pairs(given.run, given.steps).items():
        print(f"{name}: IoU {value:.3f}")


if __name__ == "__main__":
    main()
