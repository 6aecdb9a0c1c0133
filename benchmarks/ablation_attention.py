"""With and without L_attn (Fig. 3a): do the attention maps find held-out lesions?

Run from the repository's root:
    python -m benchmarks.ablation_attention --run results/isic2018-mini [--split val]
        [--seeds 0 1 2] [--steps 300] [--alphas 0.1 0] [--images 48] [--work DIR] [--out DIR]

Takes the prepared images and captions of a finished run (`data/`, `caption/`), and its
fine-tuning settings (`finetune/config.json`) where it has them. Each seed and each weight of
L_attn is one fine-tuning, all else equal; then one pass over held-out images gives the IoU of the
thresholded `<lesion>` map, and of the mask of Eq. 7, with the true mask. Writes
`ablation_attention.json`, `ablation_attention.svg` (a dot a seed) and
`ablation_attention.png` (the same images with and without). An interrupted run goes on.
"""

import argparse
import json
import logging
from pathlib import Path

import numpy as np
from PIL import Image

from didgen.report.figures import arms_chart
from didgen.runtime.files import read_json, write_json, write_png, write_text
from didgen.settings.finetune import Settings as FinetuneSettings
from didgen.stages import finetune, maps

DRAWN = 4  # images in the figure


def settings_of(run: Path, given: argparse.Namespace) -> dict[str, object]:
    """The fine-tuning settings of the run, with what the command line changes."""
    path = run / "finetune" / "config.json"
    values = read_json(path) if path.is_file() else {}
    known = {k: v for k, v in values.items() if k in FinetuneSettings.model_fields}
    # None of these changes the weights, and all take time.
    known |= {"validation_images": 0, "checkpoint_every": 10**6}
    for name in ("steps", "batch_size", "backbone"):
        if (value := getattr(given, name)) is not None:
            known[name] = value
    return known


def measure(given: argparse.Namespace, alpha: float, seed: int) -> dict[str, object]:
    """Fine-tune with one weight and one seed, and score the maps."""
    place = given.work / f"alpha{alpha:g}-seed{seed}"
    data, captions = given.run / "data", given.run / "caption" / "captions.csv"
    if not (place / "finetune" / "model_index.json").is_file():
        values = {**settings_of(given.run, given), "alpha": alpha, "seed": seed}
        paths = {"train": data / "train.csv", "captions": captions}
        folders = {"out": place / "finetune", "state": given.work / "state"}
        finetune.run(finetune.Config(**values, **paths, **folders))
    maps.run(
        maps.Config(
            manifest=data / f"{given.split}.csv",
            captions=captions,
            backbone=place / "finetune",
            images=given.images,
            panels=DRAWN,
            seed=given.seed_of_images,
            out=place / "maps",
        )
    )
    scores = read_json(place / "maps" / "maps.json")
    return {
        "alpha": alpha,
        "seed": seed,
        "n": scores["n"],
        "lesion_iou": scores["lesion_iou_mean"],
        "annotated_iou": scores["annotated_iou_mean"],
        "panels": [str(place / "maps" / r["panel"]) for r in scores["images"] if r["panel"]],
    }


def summary(rows: list[dict]) -> list[dict]:
    """Mean and standard deviation over the seeds, for each weight."""
    lines = []
    for alpha in dict.fromkeys(row["alpha"] for row in rows):
        chosen = [row for row in rows if row["alpha"] == alpha]
        line = {"alpha": alpha, "seeds": len(chosen)}
        for name in ("lesion_iou", "annotated_iou"):
            values = [row[name] for row in chosen]
            line[f"{name}_mean"] = float(np.mean(values))
            line[f"{name}_sd"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
        lines.append(line)
    return lines


def picture(rows: list[dict]) -> np.ndarray:
    """Each image's panel under every weight, one below the other, a white gap between images."""
    first = [row for row in rows if row["seed"] == rows[0]["seed"]]
    strips = []
    for panels in zip(*(row["panels"] for row in first), strict=True):
        strips += [np.asarray(Image.open(panel).convert("RGB")) for panel in panels]
        strips.append(np.full((8, strips[-1].shape[1], 3), 255, np.uint8))
    return np.concatenate(strips[:-1])


def main() -> None:
    """Run what is missing, then write and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--split", default="val", choices=("val", "test"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--alphas", type=float, nargs="+", default=[0.1, 0.0])
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--seed-of-images", type=int, default=0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--backbone")
    parser.add_argument("--work", type=Path, help="default: <run>/ablation")
    parser.add_argument("--out", type=Path, help="default: the same")
    given = parser.parse_args()
    given.work = given.work or given.run / "ablation"
    out = given.out or given.work
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    rows = [measure(given, alpha, seed) for seed in given.seeds for alpha in given.alphas]
    shown = [{k: v for k, v in row.items() if k != "panels"} for row in rows]
    result = {"split": given.split, "summary": summary(rows), "rows": shown}
    write_json(out / "ablation_attention.json", result)
    arms = {
        f"alpha {alpha:g}": [row["lesion_iou"] for row in rows if row["alpha"] == alpha]
        for alpha in given.alphas
    }
    title = "IoU of the <lesion> map and the true mask"
    svg = arms_chart("ablation", title, arms, "IoU").svg
    # Outside the report's page there is no style sheet.
    style = (
        "<style>text{font:12px sans-serif}line{stroke:#888}.dot{fill:#36c}.band{fill:#cde}</style>"
    )
    text = str(svg).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    write_text(out / "ablation_attention.svg", text.replace("<title", style + "<title", 1))
    write_png(out / "ablation_attention.png", picture(rows))
    print(json.dumps(result["summary"], indent=2))


if __name__ == "__main__":
    main()
