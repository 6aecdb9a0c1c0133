"""Pretrain the tiny backbone on phantoms (its result comes with DiDGen)."""

import logging
import time

import numpy as np

from didgen.captions.attributes import flip_horizontal
from didgen.captions.measure import measure
from didgen.captions.sentence import write_sentence
from didgen.downstream.feature_spaces import Lite0Features
from didgen.runtime.outputs import check_output, paths_read
from didgen.settings import extras
from didgen.settings.pretrain_tiny import Config
from didgen.tiny.pretraining import Recipe, begun_from, pretrain
from didgen.training.loop import OutOfTime

LOGGER = logging.getLogger(__name__)


def run(config: Config) -> None:
    """Draw phantoms, train autoencoder, decoder, text encoder, then the denoiser; write the folder.

    Called again with the same work folder and the same settings, `minutes_limit` aside, it
    continues where it stopped.
    """
    check_output(config.out, "pretrain-tiny", paths_read(config))
    if config.report_to != "none":
        extras.require(config.report_to, f"report_to: {config.report_to}")
    limit = config.minutes_limit
    deadline = None if limit is None else time.monotonic() + 60 * limit
    recipe = Recipe(config, start=config.start, deadline=deadline)
    # The record travels with the weights: how they were made, not where.
    record = config.model_dump(mode="json", exclude={"out", "work", "start", "report_to"})
    if config.start is not None:
        record |= begun_from(config.start)
    try:
        pretrain(recipe, describe, Lite0Features(), config.out, config.work, record)
    except OutOfTime as stop:
        LOGGER.warning("%s; the same command continues from there", stop)


def describe(image: np.ndarray, mask: np.ndarray, label: str) -> tuple[str, str]:
    """The captions of an image and of its mirror image, measured with its true mask.

    Shapes: image uint8 (H, W, 3), mask bool (H, W).
    """
    attributes = measure(image, mask, label).attributes
    return write_sentence(attributes), write_sentence(flip_horizontal(attributes))
