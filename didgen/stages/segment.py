"""Train a segmenter on one arm and test it on real images."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator, model_validator

from didgen.downstream.arms import CLASSIFICATION_ONLY, parse_arm
from didgen.downstream.schedule import Schedule

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from didgen.downstream.datasets import ImageSet

LOGGER = logging.getLogger(__name__)


class Settings(Schedule):
    """Which segmenter, and how it is trained."""

    model: Literal["unet", "unet++", "deeplabv3+", "segformer", "dcsau-net", "xbound-former"] = (
        Field("unet", description="segmenter; the last two, the paper's, have their own encoder")
    )
    encoder: str = Field(
        "efficientnet_lite0",
        description="encoder of the others, a timm name, or mit_b0 to mit_b5 for `segformer`",
    )
    pretrained: bool = Field(
        True,
        description="start the encoder from pretrained weights: those of `weights`, or "
        "EfficientNet-Lite0's packaged ImageNet ones; others start from scratch",
    )
    weights: str | None = Field(
        None,
        description="a .safetensors file of the encoder's pretrained weights under timm's names "
        "(of `xbound-former`: pvt_v2_b2's), or `hub`: those that timm publishes, else from "
        "scratch, as metrics.json then says",
    )
    decoder_channels: tuple[int, int, int, int, int] = Field(
        (128, 64, 32, 16, 16),
        description="channels of the decoder of `unet` and `unet++`, coarse to fine",
    )
    steps: int = Field(80, ge=1, description="optimiser steps at most, equal for every arm")
    patience: int = Field(
        20, ge=1, description="evaluations without a better one before training stops"
    )

    @model_validator(mode="after")
    def _norms_see_two_images(self) -> "Settings":
        if self.model == "dcsau-net" and self.batch_size < 2:
            raise ValueError(
                f"batch_size: found {self.batch_size}, expected at least 2: some of DCSAU-Net's "
                "batch norms see one value of each image"
            )
        return self


class Config(Settings):
    """Settings and paths of the stage."""

    train: Path = Field(description="manifest of the real training images")
    val: Path = Field(description="manifest of the real validation images")
    test: Path = Field(description="manifest of the real test images")
    synthetic: Path | None = Field(
        None, description="metadata.csv of the lesion-mask pairs; duplicates match their number"
    )
    arm: str = Field(
        description="original, classic, duplicates or the name of a synthetic set; -0.5x after it "
        "or after duplicates: half as many images as real ones"
    )
    seed: int = Field(0, ge=0, description="seed of weights, order and augmentation")
    out: Path = Field(
        description="folder to write: scores.csv, metrics.json, curves.csv, segmenter.safetensors"
    )
    state: Path | None = Field(
        None, description="folder for resumable state, removed when done; null: start anew"
    )

    @field_validator("arm")
    @classmethod
    def _arm_is_known(cls, value: str) -> str:
        if parse_arm(value).kind in CLASSIFICATION_ONLY:
            raise ValueError(f"found arm {value!r}, which balances classes; masks have none")
        return value


def run(config: Config) -> None:
    """Train, test and write the network, its scores, metrics and curves, and `config.json`.

    `segmenter.safetensors` holds the weights of the best evaluation and how to build the network.
    Only images with a mask take part. Raises: ValueError for leaks between splits, unusable
    images or masks, an unknown encoder or weights of another; `TrainingStopped`.
    """
    from didgen.runtime.locks import sole_writer
    from didgen.stages.judging import load_arm

    frames, counts = load_arm(config, "mask")
    with sole_writer(config.out):  # a killed launcher may have left this training behind
        _train(config, frames, counts)


def _train(config: Config, frames: dict[str, "pd.DataFrame"], counts: dict[str, Any]) -> None:
    from didgen.downstream.classic import classic
    from didgen.downstream.datasets import build, keep_in_memory
    from didgen.downstream.saved import SegmenterCard, save_segmenter
    from didgen.downstream.segmenters import build_segmenter, segmentation_loss
    from didgen.downstream.training import predict, seeded, train
    from didgen.runtime.precision import default_device
    from didgen.stages.judging import finish_state, grid_of, state_folder, write_results

    learned = {name: frames[name] for name in ("train", "val")}
    state = state_folder(config, learned, config.weights)
    sets = {k: build(frames[k], config.image_size) for k in ("train", "val", "test")}
    size = sets["train"].image_size
    with seeded(config.seed):
        built = build_segmenter(
            config.encoder, size, config.decoder_channels, config.pretrained,
            model=config.model, weights=config.weights,
        )  # fmt: skip
    LOGGER.info("%s, weights: %s", built.name, built.weights)
    keep_in_memory(list(sets.values()), config.memory_gb)

    def score(outputs: "np.ndarray", data: "ImageSet") -> float:
        return float(overlaps(outputs, data)[0].mean())

    outcome = train(
        built.model, sets["train"], sets["val"], built.loss or segmentation_loss, score, config,
        config.seed, stronger=classic if parse_arm(config.arm).kind == "classic" else None,
        state=state,
    )  # fmt: skip
    outputs = predict(built.model, sets["test"], default_device(), outcome.precision)
    test, table = _scores(outputs, sets["test"])
    LOGGER.info("test: Dice %.3f, IoU %.3f", test["dice"], test["iou"])
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
        model=config.model,
        standardized=built.standardized,
    )
    save_segmenter(config.out / "segmenter.safetensors", built.model, card)
    write_results(config, "segmentation", built, outcome, details, {"scores.csv": table})
    finish_state(state)


def _scores(outputs: "np.ndarray", data: "ImageSet") -> tuple[dict[str, Any], "pd.DataFrame"]:
    """The test metrics, and those of each image."""
    import numpy as np

    from didgen.metrics.boundary import boundary_iou, hausdorff95
    from didgen.metrics.segmentation import summarize, threshold_jaccard

    dices, jaccards = overlaps(outputs, data)
    pairs = zip(outputs[:, 0] > 0, data.masks.read(np.arange(len(data))).astype(bool), strict=True)
    borders = np.array([(boundary_iou(p, t), hausdorff95(p, t), not p.any()) for p, t in pairs])
    table = data.identity()
    table["dice"], table["iou"] = dices.round(6), jaccards.round(6)
    table["threshold_jaccard"] = threshold_jaccard(jaccards).round(6)
    table["boundary_iou"], table["hd95"] = borders[:, 0].round(6), borders[:, 1].round(3)
    test = summarize(dices, jaccards, borders[:, 0], borders[:, 1])
    return {**test, "n_empty_predictions": int(borders[:, 2].sum())}, table


def overlaps(outputs: "np.ndarray", data: "ImageSet") -> tuple["np.ndarray", "np.ndarray"]:
    """Dice and IoU of each image; a pixel is lesion where its probability exceeds one half."""
    import numpy as np

    from didgen.metrics.segmentation import dice, iou

    predicted = outputs[:, 0] > 0
    true = data.masks.read(np.arange(len(data))).astype(bool)
    return dice(predicted, true), iou(predicted, true)
