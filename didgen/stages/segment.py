"""Train a segmenter on one arm and test it on real images."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from didgen.downstream.schedule import Schedule

if TYPE_CHECKING:
    import numpy as np

    from didgen.downstream.datasets import ImageSet

LOGGER = logging.getLogger(__name__)


class Settings(Schedule):
    """Which segmenter, and how it is trained."""

    encoder: str = Field("efficientnet_lite0", description="encoder of the U-Net, a timm name")
    pretrained: bool = Field(
        True,
        description="start EfficientNet-Lite0 from ImageNet; other encoders start from scratch",
    )
    decoder_channels: tuple[int, int, int, int, int] = Field(
        (128, 64, 32, 16, 16), description="channels of the decoder, coarse to fine"
    )
    steps: int = Field(80, ge=1, description="optimiser steps at most, equal for every arm")
    patience: int = Field(
        20, ge=1, description="evaluations without a better one before training stops"
    )


class Config(Settings):
    """Settings and paths of the stage."""

    train: Path = Field(description="manifest of the real training images")
    val: Path = Field(description="manifest of the real validation images")
    test: Path = Field(description="manifest of the real test images")
    synthetic: Path | None = Field(None, description="metadata.csv of the lesion-mask pairs")
    arm: Literal["original", "synthetic"] = Field(
        description="original: real images only; synthetic: real and synthetic images"
    )
    seed: int = Field(0, ge=0, description="seed of weights, order and augmentation")
    out: Path = Field(
        description="folder to write: scores.csv, metrics.json, curves.csv, segmenter.safetensors"
    )


def run(config: Config) -> None:
    """Train, test and write the network, its scores, metrics and curves, and `config.json`.

    `segmenter.safetensors` holds the weights of the best evaluation and how to build the network.
    Only images with a mask take part. Raises: ValueError for leaks between splits, unusable
    images or masks, or an unknown encoder.
    """
    from didgen.backbone.precision import default_device
    from didgen.downstream.datasets import build, keep_in_memory
    from didgen.downstream.saved import SegmenterCard, save_segmenter
    from didgen.downstream.segmenters import build_segmenter, segmentation_loss
    from didgen.downstream.training import predict, seeded, train
    from didgen.metrics.segmentation import summarize
    from didgen.stages.judging import grid_of, load_arm, write_results

    frames, counts = load_arm(config, "mask")
    sets = {k: build(frames[k], config.image_size) for k in ("train", "val", "test")}
    keep_in_memory(list(sets.values()), config.memory_gb)
    size = sets["train"].image_size
    with seeded(config.seed):
        built = build_segmenter(config.encoder, size, config.decoder_channels, config.pretrained)
    LOGGER.info("%s, weights: %s", built.name, built.weights)

    def score(outputs: "np.ndarray", data: "ImageSet") -> float:
        return float(overlaps(outputs, data)[0].mean())

    outcome = train(
        built.model, sets["train"], sets["val"], segmentation_loss, score, config, config.seed
    )
    outputs = predict(built.model, sets["test"], default_device(), outcome.precision)
    dices, jaccards = overlaps(outputs, sets["test"])
    test = summarize(dices, jaccards)
    LOGGER.info("test: Dice %.3f, IoU %.3f", test["dice"], test["iou"])
    table = sets["test"].identity()
    table["dice"], table["iou"] = dices.round(6), jaccards.round(6)
    details = {
        **counts,
        "images_seen_at": grid_of(sets["test"]),
        "masks_compared_at": grid_of(sets["test"]),
        "val_score": "Dice",
        "test": test,
    }
    card = SegmenterCard(
        encoder=config.encoder,
        decoder_channels=config.decoder_channels,
        image_size=size,
        arm=config.arm,
        seed=config.seed,
        n_train=counts["n_train"],
        val_dice=outcome.best_score,
    )
    save_segmenter(config.out / "segmenter.safetensors", built.model, card)
    write_results(config, "segmentation", built, outcome, details, {"scores.csv": table})


def overlaps(outputs: "np.ndarray", data: "ImageSet") -> tuple["np.ndarray", "np.ndarray"]:
    """Dice and IoU of each image; a pixel is lesion where its probability exceeds one half."""
    import numpy as np

    from didgen.metrics.segmentation import dice, iou

    predicted = outputs[:, 0] > 0
    true = data.masks.read(np.arange(len(data))).astype(bool)
    return dice(predicted, true), iou(predicted, true)
