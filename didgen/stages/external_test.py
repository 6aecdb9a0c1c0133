"""Test every network of every arm on data sets that nothing was trained on."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from didgen.downstream.classifiers import ClassifierCard, load_classifier
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
# Of tables without rows.
COLUMNS = {
    "predictions.csv": ("set", "arm", "seed", "id", "label", "prediction"),
    "scores.csv": ("set", "arm", "seed", "id", "dice", "iou"),
}


def run(config: Config) -> None:
    """Write `predictions.csv` and `scores.csv`, of every set, arm and seed, and `config.json`.

    A set tests the tasks that `external_data` says it can; a table may have no row.
    Raises: ValueError without sets or networks, or for a network that is none.
    """
    read = paths_read(config)
    check_output(config.out, "external_test", read)
    path = config.external / "summary.json"
    if not path.is_file():
        raise ValueError(f"{path}: no such file; run the external_data stage first")
    sets = read_object(path)
    if config.classify is None and config.segment is None:
        raise ValueError("found neither --classify nor --segment, expected at least one of them")
    with output_folder(config.out, "external_test", read) as out:
        for name, task, test, networks in (
            ("predictions.csv", "classification", _classified, _networks(config, "classify")),
            ("scores.csv", "segmentation", _segmented, _networks(config, "segment")),
        ):
            able = [title for title, own in sets.items() if task in own["tasks"]]
            LOGGER.info("%s: %s", task, ", ".join(able) or "no set can test it")
            tables = [
                table
                for title in able
                for table in _tables(
                    title, networks, test(config.external / title / "test.csv", config)
                )
            ]
            empty = pd.DataFrame(columns=COLUMNS[name])
            write_csv(out / name, pd.concat(tables) if tables else empty)
        write_json(out / "config.json", json.loads(config.model_dump_json()))


Network = tuple[str, int, Path]
# From the folder of a network to its table.
Test = Callable[[Path], pd.DataFrame]


def _networks(config: Config, stage: str) -> list[Network]:
    """Arm, seed and folder of each network."""
    folder, arms = getattr(config, stage), getattr(config, f"{stage}_arms")
    if folder is None:
        return []
    return [(arm, seed, folder / arm / f"seed{seed}") for arm in arms for seed in config.seeds]


def _tables(title: str, networks: list[Network], test: Test) -> Iterator[pd.DataFrame]:
    """What each network says of a set, with its arm and seed."""
    for arm, seed, folder in networks:
        LOGGER.info("%s: %s", title, folder)
        table = test(folder)
        where = pd.DataFrame({"set": title, "arm": arm, "seed": seed}, table.index)
        yield pd.concat([where, table], axis=1)


def _classified(path: Path, config: Config) -> Test:
    """What a classifier says of the images of a set."""
    # As each kind of network sees the images: all of one run see them alike.
    opened: dict[ClassifierCard, ImageSet] = {}

    def test(folder: Path) -> pd.DataFrame:
        built, card = load_classifier(folder / "classifier.safetensors", "classify")
        if card not in opened:
            rows, _ = usable_rows(path, "label")
            rows = of_classes(
                rows, card.classes, path, "networks do not know their class", "leave the set out"
            )
            opened[card] = build(rows, card.image_size, card.classes)
            keep_in_memory([opened[card]], config.memory_gb)
        logits = predict(built.model, opened[card], default_device(), card.precision)
        return predictions(opened[card], softmaxed(logits), list(card.classes))

    return test


def _segmented(path: Path, config: Config) -> Test:
    """How well a segmenter finds the lesions of a set."""
    opened: dict[int, ImageSet] = {}

    def test(folder: Path) -> pd.DataFrame:
        model, card = load_segmenter(folder / "segmenter.safetensors")
        if card.image_size not in opened:
            opened[card.image_size] = build(usable_rows(path, "mask")[0], card.image_size)
            keep_in_memory([opened[card.image_size]], config.memory_gb)
        data = opened[card.image_size]
        training: dict[str, Any] = read_object(folder / "metrics.json")["training"]
        return scores(predict(model, data, default_device(), training["precision"]), data)[1]

    return test
