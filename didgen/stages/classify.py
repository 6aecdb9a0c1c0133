"""Train a classifier on one arm and test it on real images."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from didgen.downstream.schedule import Schedule

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from didgen.downstream.datasets import ImageSet

LOGGER = logging.getLogger(__name__)


class Settings(Schedule):
    """Which classifier, and how it is trained."""

    model: str = Field("efficientnet_lite0", description="classifier, any timm model name")
    pretrained: bool = Field(
        True, description="start EfficientNet-Lite0 from ImageNet; other models start from scratch"
    )


class Config(Settings):
    """Settings and paths of the stage."""

    train: Path = Field(description="manifest of the real training images")
    val: Path = Field(description="manifest of the real validation images")
    test: Path = Field(description="manifest of the real test images")
    synthetic: Path | None = Field(None, description="metadata.csv of the synthetic images")
    arm: Literal["original", "synthetic"] = Field(
        description="original: real images only; synthetic: real and synthetic images"
    )
    seed: int = Field(0, ge=0, description="seed of weights, order and augmentation")
    out: Path = Field(description="folder to write: predictions.csv, metrics.json, curves.csv")


def run(config: Config) -> None:
    """Train, test and write `predictions.csv`, `metrics.json`, `curves.csv` and `config.json`.

    Raises: ValueError for leaks between splits, unusable images or an unknown model.
    """
    from didgen.backbone.precision import default_device
    from didgen.downstream.classifiers import build_classifier, classification_loss
    from didgen.downstream.datasets import build, class_codes, keep_in_memory
    from didgen.downstream.training import predict, seeded, train
    from didgen.metrics.classification import balanced_accuracy, summarize
    from didgen.stages.judging import grid_of, load_arm, write_results

    frames, counts = load_arm(config, "label")
    # Real images alone name the classes, so every arm has the same ones.
    classes = class_codes([frames["real"], frames["val"], frames["test"]])
    sets = {k: build(frames[k], config.image_size, classes) for k in ("train", "val", "test")}
    keep_in_memory(list(sets.values()), config.memory_gb)
    size = sets["train"].image_size
    with seeded(config.seed):
        built = build_classifier(config.model, len(classes), size, config.pretrained)
    LOGGER.info("%s, weights: %s", built.name, built.weights)

    def score(outputs: "np.ndarray", data: "ImageSet") -> float:
        return balanced_accuracy(data.labels, outputs.argmax(1))

    outcome = train(
        built.model, sets["train"], sets["val"], classification_loss, score, config, config.seed
    )
    logits = predict(built.model, sets["test"], default_device(), outcome.precision)
    probabilities = _softmax(logits)
    test = summarize(sets["test"].labels, probabilities, classes)
    LOGGER.info("test: balanced accuracy %.3f", test["balanced_accuracy"])
    details = {
        "classes": classes,
        **counts,
        "images_seen_at": grid_of(sets["test"]),
        "val_score": "balanced accuracy",
        "test": test,
    }
    table = _predictions(sets["test"], probabilities, classes)
    write_results(config, "classification", built, outcome, details, {"predictions.csv": table})


def _softmax(logits: "np.ndarray") -> "np.ndarray":
    from scipy.special import softmax

    # In float64: rounding to float32 would make ties among near-certain predictions.
    return softmax(logits.astype("float64"), axis=1)


def _predictions(
    data: "ImageSet", probabilities: "np.ndarray", classes: list[str]
) -> "pd.DataFrame":
    table = data.identity()
    table["label"] = [classes[k] for k in data.labels]
    table["prediction"] = [classes[k] for k in probabilities.argmax(1)]
    for k, code in enumerate(classes):
        table[f"p_{code}"] = probabilities[:, k].round(6)
    return table
