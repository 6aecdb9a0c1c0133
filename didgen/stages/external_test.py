"""Test every network of every arm on data sets that nothing was trained on."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from didgen.data.manifest import read_manifest
from didgen.downstream.classifiers import load_classifier
from didgen.downstream.datasets import ImageSet, build, keep_in_memory, of_classes, usable_rows
from didgen.downstream.segmenters import load_segmenter
from didgen.downstream.training import predict
from didgen.runtime.files import read_object, write_csv, write_json
from didgen.runtime.outputs import check_output, output_folder, paths_read
from didgen.runtime.precision import default_device
from didgen.settings.external_test import Config
from didgen.stages.classify import predictions, softmaxed
from didgen.stages.segment import scores

LOGGER = logging.getLogger(__name__)


def run(config: Config) -> None:
    """Write `predictions.csv` and `scores.csv`, of every set, arm and seed, and `config.json`.

    A set without labels, or without masks, is left out of the one table; a table without sets is
    not written. Raises: ValueError without sets or networks, or for a network that is none.
    """
    read = paths_read(config)
    check_output(config.out, "external_test", read)
    paths = {path.parent.name: path for path in sorted(config.external.glob("*/test.csv"))}
    if not paths:
        raise ValueError(
            f"{config.external}: found no <name>/test.csv, expected one for each external set; run "
            "external_data first"
        )
    if config.classify is None and config.segment is None:
        raise ValueError("found neither --classify nor --segment, expected at least one of them")
    with output_folder(config.out, "external_test", read) as out:
        for name, need, networks, test in (
            ("predictions.csv", "label", _networks(config, "classify"), _classified),
            ("scores.csv", "mask", _networks(config, "segment"), _segmented),
        ):
            if not networks:
                continue
            sets = {title: path for title, path in paths.items() if _has(path, need)}
            LOGGER.info("%s: %s", name, ", ".join(sets) or "no set has what it takes")
            if sets:
                write_csv(out / name, pd.concat(_tested(networks, sets, test, config.memory_gb)))
        write_json(out / "config.json", json.loads(config.model_dump_json()))


def _networks(config: Config, stage: str) -> list[tuple[str, int, Path]]:
    """Arm, seed and folder of each network."""
    folder, arms = getattr(config, stage), getattr(config, f"{stage}_arms")
    if folder is None:
        return []
    return [(arm, seed, folder / arm / f"seed{seed}") for arm in arms for seed in config.seeds]


def _has(path: Path, column: str) -> bool:
    return bool((read_manifest(path, check_files=False)[column] != "").any())


Sets = dict[Any, ImageSet]
Test = Callable[[Path, Path, Sets, float], pd.DataFrame]


def _tested(
    networks: list[tuple[str, int, Path]], sets: dict[str, Path], test: Test, memory_gb: float
) -> Iterator[pd.DataFrame]:
    # Of each set, as each kind of network wants it: images are decoded once.
    opened: dict[str, Sets] = {title: {} for title in sets}
    for arm, seed, folder in networks:
        LOGGER.info("%s", folder)
        for title, path in sets.items():
            table = test(folder, path, opened[title], memory_gb)
            yield pd.concat(
                [pd.DataFrame({"set": title, "arm": arm, "seed": seed}, table.index), table], axis=1
            )


def _classified(folder: Path, path: Path, opened: Sets, memory_gb: float) -> pd.DataFrame:
    """What a classifier says of the images of a set."""
    built, card = load_classifier(folder / "classifier.safetensors", "classify")
    if card not in opened:
        rows, _ = usable_rows(path, "label")
        rows = of_classes(
            rows, card.classes, path, "the networks do not know their class", "leave the set out"
        )
        opened[card] = build(rows, card.image_size, card.classes)
        keep_in_memory([opened[card]], memory_gb)
    logits = predict(built.model, opened[card], default_device(), card.precision)
    return predictions(opened[card], softmaxed(logits), list(card.classes))


def _segmented(folder: Path, path: Path, opened: Sets, memory_gb: float) -> pd.DataFrame:
    """How well a segmenter finds the lesions of a set."""
    model, card = load_segmenter(folder / "segmenter.safetensors")
    if card.image_size not in opened:
        rows, _ = usable_rows(path, "mask")
        opened[card.image_size] = build(rows, card.image_size)
        keep_in_memory([opened[card.image_size]], memory_gb)
    data = opened[card.image_size]
    precision = read_object(folder / "metrics.json")["training"]["precision"]
    outputs: np.ndarray = predict(model, data, default_device(), precision)
    return scores(outputs, data)[1]
