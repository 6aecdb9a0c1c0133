"""A made-up run's folder, with every file that the report reads."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from didgen.stages import verdict

ARMS = {"original": 0.0, "synthetic": 0.021}
TONES = ("light", "very light", "tan", "")
SHARDS = ("1-of-2", "2-of-2")
Draw = Callable[[str, int, int], tuple[np.ndarray, np.ndarray]]


def blob(label: str, seed: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A brown ellipse on pink: uint8 (size, size, 3), bool (size, size)."""
    rng = np.random.default_rng([seed, *label.encode()])
    y, x = np.mgrid[:size, :size] / size
    cx, cy, a, b = rng.uniform([0.4, 0.4, 0.15, 0.15], [0.6, 0.6, 0.3, 0.3])
    mask = ((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 < 1
    image = np.where(mask[..., None], (120, 70, 50), (225, 180, 160))
    return (image + rng.normal(0, 6, image.shape)).clip(0, 255).astype(np.uint8), mask


def save(path: Path, pixels: np.ndarray) -> None:
    """Write an array as PNG, a mask as 0/255."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8) * 255 if pixels.dtype == bool else pixels).save(path)


def save_json(path: Path, value: object) -> None:
    """Write JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def make_run(
    root: Path,
    codes: tuple[str, ...] = ("MEL", "NV"),
    per_class: int = 4,
    size: int = 32,
    draw: Draw = blob,
    caption: str = "A medium oval {phrase}, dark brown, centered, on light skin.",
    pairs: int = 4,
    seeds: int = 3,
) -> Path:
    """Write the whole folder; returns it."""
    rng = np.random.default_rng(0)
    _data(root, codes, per_class, size, draw, caption)
    _synthetic(root, codes, per_class, size, draw, caption, pairs)
    _maps(root, codes, size, draw)
    steps = np.arange(1, 251)
    noise = rng.normal(1, 0.06, 250)
    rec, attn = (0.09 + 0.25 * np.exp(-steps / 40)) * noise, 0.02 + 0.2 * np.exp(-steps / 25)
    frame = pd.DataFrame({"step": steps, "loss": rec + 0.1 * attn, "loss_rec": rec})
    frame = frame.assign(loss_attn=attn, lr=2e-4, grad_norm=noise, seconds=steps * 1.1)
    (root / "finetune").mkdir()
    frame.to_csv(root / "finetune" / "training.csv", index=False)
    save_json(root / "finetune" / "model_index.json", {"_class_name": "StableDiffusionPipeline"})
    _arms(root, "classify", seeds, codes, rng)
    _arms(root, "segment", seeds, codes, rng)
    verdict.run(
        verdict.Config(
            run=root.name, classify=root / "classify", segment=root / "segment",
            classify_arms=tuple(ARMS), segment_arms=tuple(ARMS), seeds=tuple(range(seeds)),
            control="original", resamples=200, out=root / "verdict.json", tables=root / "verdict",
        )
    )  # fmt: skip
    sets = [f"{name}/{shard}" for name in ("images", "pairs") for shard in SHARDS]
    for name in ("data", "caption", "finetune", *sets, "augment", "maps"):
        told: dict[str, object] = {"seed": 0, "out": str(root.resolve() / name)}
        if name == "augment":
            # As on a command line in another place than the run is read from.
            told |= {part: [f"results/demo/{part}/{shard}" for shard in SHARDS]
                     for part in ("images", "pairs")}  # fmt: skip
        save_json(root / name / "config.json", told)
    return root


def _row(name: str, label: str, split: str, size: int, mask: str = "") -> dict:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return {
        "id": name, "image": f"images/{name}.png", "mask": mask, "label": label, "split": split,
        "lesion_id": f"L{name}", "patient_id": f"P{name}", "source": "phantoms",
        "width": size, "height": size, "sha256": digest,
    }  # fmt: skip


def _phrase(caption: str, label: str) -> str:
    return caption.replace("{phrase}", label)


def _data(
    root: Path, codes: tuple[str, ...], per_class: int, size: int, draw: Draw, caption: str
) -> None:
    captions, areas = [], {}
    for offset, (split, count) in enumerate((("train", per_class), ("val", 1), ("test", 2))):
        rows = []
        for code in codes:
            for number in range(count):
                name = f"PH_{code}_{split}_{number:03d}"
                image, mask = draw(code, 1000 * offset + number, size)
                save(root / "data" / "images" / f"{name}.png", image)
                save(root / "data" / "masks" / f"{name}.png", mask)
                rows.append(_row(name, code, split, size, f"masks/{name}.png"))
                tone = TONES[len(captions) % len(TONES)]
                told = {"id": name, "caption": _phrase(caption, code), "skin_tone": tone}
                captions.append(told)
                areas.setdefault(split, []).append(float(mask.mean()))
        pd.DataFrame(rows).to_csv(root / "data" / f"{split}.csv", index=False)
    _origin_and_leaks(root / "data", codes, areas, len(captions))
    (root / "caption").mkdir()
    pd.DataFrame(captions).to_csv(root / "caption" / "captions.csv", index=False)
    counts = {"light": 9, "tan": 3, "dark": 2}
    fields = {"skin_tone": counts, "colors": {"dark brown": 12, "red": 5}, "hair": {"none": 14}}
    tokens = {"count": 14, "max_tokens": 61, "mean_tokens": 50.5, "trimmed": 0, "limit": 77}
    told = {"count": 14, "distinct_captions": 9, "mask_source": {"given": 14}, "tokens": tokens}
    save_json(root / "caption" / "statistics.json", told | {"values": fields})


def _origin_and_leaks(
    folder: Path, codes: tuple[str, ...], areas: dict[str, list[float]], n_images: int
) -> None:
    phantoms = {"name": "phantoms", "licence": "CC0-1.0", "citation": "", "n": n_images}
    summary = {"left_out": {"over max_per_class": 3}, "sources": [phantoms], "mask_area": areas}
    sizes = [{"width": 600, "height": 450, "n": n_images - 1}]
    summary["original_sizes"] = [*sizes, {"width": None, "height": None, "n": 1}]
    save_json(folder / "summary.json", summary)

    def pair(a: str, b: str, kind: str, distance: float | None) -> dict:
        names = {end: f"PH_{codes[0]}_{name}" for end, name in (("a", a), ("b", b))}
        splits = {f"split_{end}": name.split("_")[0] for end, name in (("a", a), ("b", b))}
        return names | splits | {"kind": kind, "distance": distance}

    pairs = [
        pair("train_000", "train_001", "near", 0.125),
        pair("train_900", "test_001", "exact", 0.0),
        pair("test_000", "test_001", "lesion", None),
    ]
    finder = "Perceptual hash of 64 bits, at most 6 of them different."
    told = {"policy": "drop", "finder": finder, "n_images": n_images + 1, "n_groups": n_images - 2}
    told |= {"clusters": {"exact": 1, "near": 1}, "pairs": pairs, "n_pairs": len(pairs)}
    dropped = [pairs[1]["a"]]
    save_json(folder / "leaks.json", told | {"n_crossing": 1, "dropped": dropped})


def _synthetic(
    root: Path,
    codes: tuple[str, ...],
    per_class: int,
    size: int,
    draw: Draw,
    caption: str,
    pairs: int,
) -> None:
    def synthetic(name: str, code: str, seed: int, **more: object) -> dict:
        told = {"method": "didgen", "seed": seed, "caption": _phrase(caption, code)}
        row = _row(name, code, "train", size) | told
        return row | {"parent_ids": "PH_1", "checkpoint": "ab12cd34ef56ab78"} | more

    rows = []
    for code in codes:
        for number in range(per_class):
            name = f"SYN_{code}_{number:05d}"
            folder = root / "images" / SHARDS[len(rows) % 2]
            save(folder / "images" / f"{name}.png", draw(code, 5000 + number, size)[0])
            rows.append(synthetic(name, code, 5000 + number))
    _shards(root / "images", rows)
    made = []
    for number in range(pairs):
        name, code = f"PAIR_{number:05d}", codes[number % len(codes)]
        image, mask = draw(code, 7000 + number, size)
        condition = np.roll(mask, 1 + number % 9, axis=number % 2)
        iou = (mask & condition).sum() / (mask | condition).sum()
        folder = root / "pairs" / SHARDS[number % 2]
        save(folder / "images" / f"{name}.png", image)
        save(folder / "masks" / f"{name}.png", mask)
        save(folder / "conditions" / f"{name}.png", condition)
        files = {"mask": f"masks/{name}.png", "condition": f"conditions/{name}.png"}
        made.append(synthetic(name, code, 7000 + number, **files, layout_iou=iou))
    _shards(root / "pairs", made)
    table = pd.DataFrame(rows + made)
    table.insert(0, "file_name", table["image"])
    (root / "augment").mkdir()
    table.to_csv(root / "augment" / "metadata.csv", index=False)


def _shards(folder: Path, rows: list[dict]) -> None:
    for offset, shard in enumerate(SHARDS):
        frame = pd.DataFrame(rows[offset :: len(SHARDS)])
        frame.to_csv(folder / shard / "metadata.csv", index=False)
        none = pd.DataFrame(columns=["id", "seed", "failure"])
        none.to_csv(folder / shard / "failed.csv", index=False)


def _maps(root: Path, codes: tuple[str, ...], size: int, draw: Draw) -> None:
    from didgen.attention.panels import attention_panel

    images = []
    for number, code in enumerate(codes * 2):
        name = f"PH_{code}_test_{number:03d}"
        image, mask = draw(code, 2000 + number, size)
        y, x = np.mgrid[:size, :size] / size
        near = np.exp(-((x - 0.5) ** 2 + (y - 0.5) ** 2) / 0.05) * 0.4 + mask * 0.6
        found = np.exp(-((x - 0.5) ** 2 + (y - 0.5) ** 2) / 0.06) + mask > 0.72 + 0.06 * number
        panel = attention_panel(image, near, 1 - near, mask)
        save(root / "maps" / "panels" / f"{name}.png", panel)
        iou = float((mask & found).sum() / (mask | found).sum())
        panel = f"panels/{name}.png"
        ious = {"lesion_iou": iou, "annotated_iou": 0.75 + 0.125 * (number % 2)}
        images.append({"id": name, **ious, "panel": panel})
    values = [image["lesion_iou"] for image in images]
    prompt = "An image of <lesion> on <skin>."
    told = {
        "resolution": 16,
        "prompt": prompt,
        "n": len(images),
        "lesion_iou_mean": float(np.mean(values)),
    }
    told |= {"lesion_iou_std": float(np.std(values, ddof=1)), "annotated_iou_mean": 0.8125}
    save_json(root / "maps" / "maps.json", told | {"images": images})


# Test images of each class.
N_TEST = 30


def _arms(
    root: Path, folder: str, seeds: int, codes: tuple[str, ...], rng: np.random.Generator
) -> None:
    """Every training's results: more diagnoses are right with synthetic images, Dice hardly moves.

    The measures of metrics.json are drawn apart from the tables that the verdict reads.
    """
    metric, level = ("balanced_accuracy", 0.58) if folder == "classify" else ("dice", 0.86)
    labels = np.repeat(codes, N_TEST)
    names = [f"PH_{code}_test_{k:03d}" for k, code in enumerate(labels)]
    ease = rng.normal(0, 0.3, len(labels))
    for arm, gain in ARMS.items():
        for seed in range(seeds):
            score = float(level + gain + rng.normal(0, 0.012))
            matrix = rng.integers(0, 9, (len(codes), len(codes))) + 30 * np.eye(
                len(codes), dtype=int
            )
            recall = {
                code: {
                    "recall": float(rng.uniform(0.4, 0.9)),
                    "auroc": None,
                    "f1": 0.5,
                    "support": 6,
                }
                for code in codes
            }
            test = {metric: score, "auroc_macro": 0.9 + gain}
            identity = pd.DataFrame({"id": names, "lesion_id": names, "cluster": ""})
            place = root / folder / arm / f"seed{seed}"
            place.mkdir(parents=True)
            if folder == "classify":
                confusion = {"classes": list(codes), "rows_true": matrix.tolist()}
                test |= {"per_class": recall, "confusion": confusion, "macro": {"f1": 0.5 + gain}}
                own = 1 / (1 + np.exp(-ease - rng.normal(0, 0.3, len(labels)) - 15 * gain))
                shares = {
                    f"p_{code}": np.where(labels == code, own, (1 - own) / (len(codes) - 1))
                    for code in codes
                }
                table = identity.assign(label=labels, **shares)
                best = table[list(shares)].to_numpy().argmax(1)
                table.assign(prediction=np.array(codes)[best]).to_csv(
                    place / "predictions.csv", index=False
                )
            else:
                dice = 0.86 + 0.05 * ease + rng.normal(0, 0.01, len(labels)) + gain / 40
                identity.assign(dice=dice, iou=dice / (2 - dice)).to_csv(
                    place / "scores.csv", index=False
                )
            model = {"name": "tiny", "weights": "scratch", "parameters": 1_500_000}
            metrics = {"arm": arm, "seed": seed, "model": model, "n_test": 40, "test": test}
            metrics |= {"n_train": 40, "n_real": 40, "n_synthetic": 16 if gain else 0}
            metrics |= {"training": {"best_score": score}, "val_score": metric.replace("_", " ")}
            save_json(place / "metrics.json", metrics)
            save_json(place / "config.json", {"arm": arm, "seed": seed})
            step = np.arange(10, 301, 10)
            value = score * (1 - np.exp(-step / 60)) + rng.normal(0, 0.01, 30)
            curves = pd.DataFrame({"step": step, "train_loss": 2 * np.exp(-step / 80) + 0.05})
            noisy = 2 * np.exp(-step / 80) + 0.4 + rng.normal(0, 0.02, 30)
            curves.assign(val_loss=noisy, val_score=value).to_csv(place / "curves.csv", index=False)
