"""Train a classifier on one arm and test it on real images."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax

from didgen.downstream.classic import classic
from didgen.downstream.classifiers import (
    Built,
    ClassifierCard,
    Loss,
    build_classifier,
    class_weights,
    classification_loss,
    save_classifier,
    weighted_loss,
)
from didgen.downstream.datasets import ImageSet, build, class_codes, keep_in_memory
from didgen.downstream.training import Outcome, predict, seeded, train
from didgen.metrics.classification import (
    DECIDING,
    expected_calibration_error,
    summarize,
    temperature,
)
from didgen.runtime.precision import default_device
from didgen.settings.arms import parse_arm
from didgen.settings.classify import Config
from didgen.stages.arm_training import (
    first_outputs,
    grid_of,
    train_arm,
    training_log,
    write_results,
)
from didgen.training.log import Log

LOGGER = logging.getLogger(__name__)


def run(config: Config) -> None:
    """Train, test and write the network, its predictions, metrics and curves, and `config.json`.

    `classifier.safetensors` holds the weights of the best evaluation and how to build the network.
    Raises: ValueError for leaks between splits, unusable images, an unknown model or weights of
    another; `TrainingStopped`.
    """
    train_arm(config, "classify", "label", _train, _label)


def _train(
    config: Config,
    out: Path,
    state: Path | None,
    frames: dict[str, pd.DataFrame],
    counts: dict[str, Any],
) -> None:
    log = training_log("classify", config, out, state)
    classes = _classes(frames)
    sets = {k: build(frames[k], config.image_size, classes) for k in ("train", "val", "test")}
    built = _build(config, sets["train"], len(classes))
    outcome = _fit(config, built, sets, len(classes), state, log)
    logits = predict(built.model, sets["test"], default_device(), outcome.precision)
    probabilities = softmaxed(logits)
    test = summarize(sets["test"].true_classes(), probabilities, classes)
    held_out = predict(built.model, sets["val"], default_device(), outcome.precision)
    test["temperature"] = temperature(held_out.astype(float), sets["val"].true_classes())
    test["ece_after_temperature"] = expected_calibration_error(
        sets["test"].true_classes(), softmaxed(logits / test["temperature"])
    )
    LOGGER.info("test: balanced accuracy %.3f", test["balanced_accuracy"])
    details = {
        "classes": classes,
        **counts,
        "images_seen_at": grid_of(sets["test"]),
        "val_score": config.classification_metric,
        "test": test,
    }
    card = ClassifierCard(
        name=built.name,
        classes=tuple(classes),
        image_size=config.image_size,
        shape=sets["train"].images.shape[:2],
        weights=built.weights,
        standardized=built.standardized,
        precision=outcome.precision,
    )
    save_classifier(out / "classifier.safetensors", built.model, card)
    table = predictions(sets["test"], probabilities, classes)
    tables = {"predictions.csv": table}
    write_results(config, out, "classification", built, outcome, details, tables)


def _label(
    config: Config,
    out: Path,
    state: Path | None,
    frames: dict[str, pd.DataFrame],
    masks: Path,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The images without a diagnosis with the likeliest one each, and how many of each class."""
    classes = _classes(frames)
    labelled = {"train": frames["real"], "val": frames["val"]}
    sets = {k: build(frame, config.image_size, classes) for k, frame in labelled.items()}
    built = _build(config, sets["train"], len(classes))
    batches = first_outputs(
        "classify", config, built, out, state,
        lambda log: _fit(config, built, sets, len(classes), state, log), frames["unlabelled"],
    )  # fmt: skip
    labels = [classes[k] for outputs in batches for k in outputs.argmax(1)]
    found = {code: labels.count(code) for code in classes}
    LOGGER.info("labelled by the first network: %s", found)
    return frames["unlabelled"].assign(label=labels), {"pseudo_classes": found}


def _classes(frames: dict[str, pd.DataFrame]) -> list[str]:
    """The classes, named by real images alone, so that every arm has the same ones."""
    return class_codes([frames["real"], frames["val"], frames["test"]])


def _build(config: Config, data: ImageSet, n_classes: int) -> Built:
    with seeded(config.seed):
        built = build_classifier(
            config.model, n_classes, data.image_size, config.pretrained, config.weights
        )
    LOGGER.info("%s, weights: %s", built.name, built.weights)
    return built


def _fit(
    config: Config,
    built: Built,
    sets: dict[str, ImageSet],
    n_classes: int,
    state: Path | None,
    log: Log,
) -> Outcome:
    """Train in place on "train", stopped by "val"."""
    keep_in_memory(list(sets.values()), config.memory_gb)

    def score(outputs: np.ndarray, data: ImageSet) -> float:
        return DECIDING[config.classification_metric](data.true_classes(), outputs.argmax(1))

    kind = parse_arm(config.arm).kind
    balanced = {"sampling": "balanced"} if kind == "oversampled" else {}
    return train(
        built.model, sets["train"], sets["val"], _loss(kind, sets["train"], n_classes), score,
        config.model_copy(update=balanced), config.seed,
        stronger=classic if kind == "classic" else None, state=state, log=log,
    )  # fmt: skip


def _loss(kind: str, data: ImageSet, n_classes: int) -> Loss:
    if kind != "weighted":
        return classification_loss
    return weighted_loss(class_weights(data.true_classes(), n_classes))


def softmaxed(logits: np.ndarray) -> np.ndarray:
    """Probabilities (N, K) of logits (N, K)."""
    # In float64: rounding to float32 would make ties among near-certain predictions.
    return softmax(logits.astype("float64"), axis=1)


def predictions(data: ImageSet, probabilities: np.ndarray, classes: list[str]) -> pd.DataFrame:
    """One row per image: who it is, its class, the predicted one, and all probabilities (N, K).

    These with every digit: rounded ones tie, which scorers count as wrong.
    """
    table = data.identity()
    table["label"] = [classes[k] for k in data.true_classes()]
    table["prediction"] = [classes[k] for k in probabilities.argmax(1)]
    for k, code in enumerate(classes):
        table[f"p_{code}"] = probabilities[:, k]
    return table
