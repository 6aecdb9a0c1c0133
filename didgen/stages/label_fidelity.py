"""Do synthetic images show the class that was asked for? Judged by classifiers of real images."""

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from didgen.data.leaks import groups_of
from didgen.downstream.classifiers import load_classifier
from didgen.downstream.datasets import build, of_classes, usable_rows
from didgen.downstream.training import predict_each
from didgen.metrics.agreement import class_agreement, seen_instead
from didgen.runtime.files import read_csv, read_object, sha256_file, write_csv, write_json
from didgen.runtime.outputs import output_folder, paths_read
from didgen.runtime.precision import default_device
from didgen.settings.label_fidelity import Config

LOGGER = logging.getLogger(__name__)
REAL, SYNTHETIC = "real", "synthetic"
AGAIN = "run the label_judges stage again"


def run(config: Config) -> None:
    """Write `label_fidelity.json`, `judgements.csv` and `config.json`.

    Each synthetic image is judged by all classifiers of `label_judges`, and the mean counts; each
    real image was judged by the one that was not trained on it or on another of its lesion.
    Raises: ValueError when no synthetic image has a class that can be judged, images differ in
    size from those that the judges learned from, or files of the judges are missing or damaged.
    """
    with output_folder(config.out, "label_fidelity", paths_read(config)) as out:
        told = _judges(config.judges)
        made = of_classes(
            usable_rows(config.synthetic, "label")[0], told["classes"], config.synthetic,
            "no real image has their class", "make images of those classes",
        )  # fmt: skip
        judgements = _judgements(config, told, made)
        summary = _summary(judgements, told["classes"], config) | {
            "model": told["model"],
            "folds": told["folds"],
            "confidence": config.confidence,
            "note": "real: images of a fold by the classifier that was not trained on it; "
            "synthetic: the mean over all classifiers; intervals: Wilson, over lesions or "
            "synthetic images",
        }
        LOGGER.info("seen as asked: %.3f; real images seen as diagnosed: %.3f",
                    summary["mean"][SYNTHETIC], summary["mean"][REAL])  # fmt: skip
        write_csv(out / "judgements.csv", judgements)
        write_json(out / "config.json", json.loads(config.model_dump_json()))
        write_json(out / "label_fidelity.json", summary)


def _judges(folder: Path) -> dict[str, Any]:
    """What `judges.json` says. Raises: ValueError unless the files that it lists are as written."""
    path = folder / "judges.json"
    if not path.is_file():
        raise ValueError(f"{path}: no such file; run the label_judges stage first")
    told = read_object(path)
    lacking = {"classes", "folds", "model", "files"} - told.keys()
    if lacking:
        raise ValueError(f"{path}: found no {', '.join(sorted(lacking))}; {AGAIN}")
    for name, digest in told["files"].items():
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name}: no such file, but {path} lists it; {AGAIN}")
        if sha256_file(folder / name) != digest:
            raise ValueError(
                f"{folder / name}: found another SHA-256 than {path} lists for it; {AGAIN}"
            )
    return told


def _judgements(config: Config, told: dict[str, Any], made: pd.DataFrame) -> pd.DataFrame:
    """Fold by fold, what its judge sees in its real images and in all synthetic ones."""
    folder, classes = config.judges, told["classes"]
    names = [f"fold{fold}.safetensors" for fold in range(told["folds"])]
    judges = {name: load_classifier(folder / name, "label_judges") for name in names}
    for name, (_, card) in judges.items():
        if list(card.classes) != classes:
            raise ValueError(
                f"{folder / name}: found a judge of {', '.join(card.classes)}, expected one of "
                f"{', '.join(classes)}; {AGAIN}"
            )
    card = judges[names[0]][1]
    data = build(made, card.image_size, classes)
    if data.images.shape[:2] != card.shape:
        sizes = [f"{width}x{height} px" for height, width in (data.images.shape[:2], card.shape)]
        raise ValueError(
            f"{config.synthetic}: found images of {sizes[0]}, but the judges learned from "
            f"{sizes[1]}; set image_size of the classify section"
        )
    device = default_device()
    networks = [(built.model.to(device), card.precision) for built, card in judges.values()]
    columns = ("id", "kind", "fold", "label", "seen", "lesion")
    real = read_csv(folder / "judgements.csv", "label_judges", columns)
    parts, lesions = [], groups_of(made)
    for fold, outputs in enumerate(predict_each(networks, data, device)):
        seen = [classes[k] for k in outputs.argmax(1)]
        own = {"id": made["id"], "kind": SYNTHETIC, "fold": fold, "label": made["label"]}
        parts += [real[real["fold"] == str(fold)]]
        parts += [pd.DataFrame(own | {"seen": seen, "lesion": lesions})]
    return pd.concat(parts, ignore_index=True)


def _summary(judgements: pd.DataFrame, classes: list[str], config: Config) -> dict[str, Any]:
    """Agreement of each class in synthetic and in real images, and what is seen instead."""
    agreement, shares = {}, {}
    for kind, rows in judgements.groupby("kind"):
        # A real image has one judge, a synthetic one a judge each fold.
        n_judges = int(rows.groupby("id")["fold"].size().max())
        rows = rows.sort_values(["fold", "id"], kind="stable") if n_judges > 1 else rows
        seen = rows["seen"].to_numpy(str).reshape(n_judges, -1)
        first = rows.iloc[: seen.shape[1]]
        labels, lesions = first["label"].to_numpy(str), first["lesion"].to_numpy(str)
        agreement[kind] = class_agreement(labels, seen, lesions, confidence=config.confidence)
        shares[kind] = seen_instead(labels, seen, classes).tolist()
    asked = [code for code in classes if code in agreement[SYNTHETIC]]
    return {
        "classes": {
            code: {kind: dataclasses.asdict(agreement[kind][code]) for kind in (SYNTHETIC, REAL)}
            for code in asked
        },
        # Both over the same classes.
        "mean": {
            kind: float(np.mean([agreement[kind][code].share for code in asked]))
            for kind in (SYNTHETIC, REAL)
        },
        "seen": {"classes": classes, **shares},
    }
