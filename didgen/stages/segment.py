"""Train a segmenter on one arm and test it on real images."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from didgen.downstream.classic import classic
from didgen.downstream.classifiers import Built
from didgen.downstream.datasets import ImageSet, build, keep_in_memory
from didgen.downstream.segmenters import (
    SegmenterCard,
    build_segmenter,
    save_segmenter,
    segmentation_loss,
)
from didgen.downstream.training import Outcome, predict, seeded, train
from didgen.metrics.boundary import boundary_iou, hausdorff95
from didgen.metrics.segmentation import dice, iou, summarize, threshold_jaccard
from didgen.runtime.files import write_png
from didgen.runtime.precision import default_device
from didgen.settings.arms import parse_arm
from didgen.settings.segment import Config
from didgen.stages.arm_training import (
    first_outputs,
    grid_of,
    train_arm,
    training_log,
    write_results,
)
from didgen.training.log import Log

LOGGER = logging.getLogger(__name__)
# In the order of `overlaps`.
METRICS = ("Dice", "IoU")


def run(config: Config) -> None:
    """Train, test and write the network, its scores, metrics and curves, and `config.json`.

    `segmenter.safetensors` holds the weights of the best evaluation and how to build the network.
    Only images with a mask take part. Raises: ValueError for leaks between splits, unusable
    images or masks, an unknown encoder or weights of another; `TrainingStopped`.
    """
    train_arm(config, "segment", "mask", _train, _label)


def _train(
    config: Config,
    out: Path,
    state: Path | None,
    frames: dict[str, pd.DataFrame],
    counts: dict[str, Any],
) -> None:
    log = training_log("segment", config, out, state)
    sets = {k: build(frames[k], config.image_size) for k in ("train", "val", "test")}
    built = _build(config, sets["train"])
    outcome = _fit(config, built, sets, state, log)
    outputs = predict(built.model, sets["test"], default_device(), outcome.precision)
    held_out = predict(built.model, sets["val"], default_device(), outcome.precision)
    test, table = scores(outputs, sets["test"])
    LOGGER.info("test: Dice %.3f, IoU %.3f", test["dice"], test["iou"])
    details = {
        **counts,
        "images_seen_at": grid_of(sets["test"]),
        "masks_compared_at": grid_of(sets["test"]),
        "val_score": config.segmentation_metric,
        "test": test,
    }
    card = SegmenterCard(
        encoder=config.encoder,
        decoder_channels=config.decoder_channels,
        image_size=sets["train"].image_size,
        arm=config.arm,
        seed=config.seed,
        n_train=counts["n_train"],
        val_dice=float(overlaps(held_out, sets["val"])[0].mean()),
        model=config.model,
        standardized=built.standardized,
    )
    save_segmenter(out / "segmenter.safetensors", built.model, card)
    write_results(config, out, "segmentation", built, outcome, details, {"scores.csv": table})


def _label(
    config: Config,
    out: Path,
    state: Path | None,
    frames: dict[str, pd.DataFrame],
    masks: Path,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The images without a mask with one each, at the size the network sees: p above one half.

    Those in which it sees no lesion are left out and counted: no image is without one.
    """
    labelled = {"train": frames["real"], "val": frames["val"]}
    sets = {k: build(frame, config.image_size) for k, frame in labelled.items()}
    built = _build(config, sets["train"])
    batches = first_outputs(
        "segment", config, built, out, state,
        lambda log: _fit(config, built, sets, state, log), frames["unlabelled"],
    )  # fmt: skip
    paths = []
    for mask in (mask for outputs in batches for mask in outputs[:, 0] > 0):
        paths.append(masks / f"{len(paths)}.png" if mask.any() else None)
        if paths[-1] is not None:
            write_png(paths[-1], mask, flush=False)
    labelled = frames["unlabelled"].assign(mask=paths).dropna(subset="mask")
    n_empty = len(paths) - len(labelled)
    LOGGER.info("outlined by the first network: %d; no lesion in %d", len(labelled), n_empty)
    return labelled, {"n_pseudo_empty": n_empty}


def _build(config: Config, data: ImageSet) -> Built:
    with seeded(config.seed):
        built = build_segmenter(
            config.encoder, data.image_size, config.decoder_channels, config.pretrained,
            model=config.model, weights=config.weights,
        )  # fmt: skip
    LOGGER.info("%s, weights: %s", built.name, built.weights)
    return built


def _fit(
    config: Config, built: Built, sets: dict[str, ImageSet], state: Path | None, log: Log
) -> Outcome:
    """Train in place on "train", stopped by "val"."""
    keep_in_memory(list(sets.values()), config.memory_gb)

    def score(outputs: np.ndarray, data: ImageSet) -> float:
        return float(overlaps(outputs, data)[METRICS.index(config.segmentation_metric)].mean())

    return train(
        built.model, sets["train"], sets["val"], built.loss or segmentation_loss, score, config,
        config.seed, stronger=classic if parse_arm(config.arm).kind == "classic" else None,
        state=state, log=log,
    )  # fmt: skip


def scores(outputs: np.ndarray, data: ImageSet) -> tuple[dict[str, Any], pd.DataFrame]:
    """The metrics of predicted masks, logits (N, 1, H, W), and those of each image."""
    dices, jaccards = overlaps(outputs, data)
    pairs = zip(outputs[:, 0] > 0, data.true_masks(), strict=True)
    borders = np.array([(boundary_iou(p, t), hausdorff95(p, t), not p.any()) for p, t in pairs])
    table = data.identity()
    table["dice"], table["iou"] = dices.round(6), jaccards.round(6)
    table["threshold_jaccard"] = threshold_jaccard(jaccards).round(6)
    table["boundary_iou"], table["hd95"] = borders[:, 0].round(6), borders[:, 1].round(3)
    test = summarize(dices, jaccards, borders[:, 0], borders[:, 1])
    return {**test, "n_empty_predictions": int(borders[:, 2].sum())}, table


def overlaps(outputs: np.ndarray, data: ImageSet) -> tuple[np.ndarray, np.ndarray]:
    """Dice and IoU of each image; a pixel is lesion where its probability exceeds one half."""
    predicted = outputs[:, 0] > 0
    true = data.true_masks()
    return dice(predicted, true), iou(predicted, true)
