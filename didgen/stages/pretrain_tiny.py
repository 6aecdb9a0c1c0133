"""Pretrain the tiny backbone on phantoms (its result comes with DiDGen)."""

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from didgen.settings.base import Section

if TYPE_CHECKING:
    import numpy as np

LOGGER = logging.getLogger(__name__)


class Settings(Section):
    """Length and size of the pretraining."""

    images: int = Field(6144, ge=1, description="phantom photographs to learn from")
    vae_steps: int = Field(4200, ge=1, description="steps of the autoencoder, 16 crops each")
    decoder_steps: int = Field(
        1000, ge=1, description="steps of the decoder alone, with features, 8 crops a worker"
    )
    text_steps: int = Field(
        600, ge=1, description="steps of the text encoder, matching 128 captions and images each"
    )
    unet_steps: int = Field(8000, ge=1, description="steps of the UNet, 8 images each")
    prompts: Literal["attributes", "shuffled", "diagnosis"] = Field(
        "attributes",
        description="what text encoder and UNet read; controls: `shuffled`, the captions of other "
        "images of the class, and `diagnosis`, nothing else",
    )
    seed: int = Field(0, ge=0, description="seed of phantoms, weights, data order and noise")
    minutes_limit: float | None = Field(
        None, gt=0, description="minutes after which to stop and keep the state; null: none"
    )
    workers: int = Field(
        2, ge=1, description="processes that draw phantoms and share each training step"
    )


class Config(Settings):
    """Settings and paths of the stage."""

    out: Path = Field(description="diffusers folder to write")
    work: Path = Field(
        Path("results/pretrain-tiny"),
        description="folder for phantoms, states, logs and previews; the same settings, "
        "`minutes_limit` aside, continue the training there, others are refused",
    )
    start: Path | None = Field(
        None,
        description="a tiny backbone to go on from, a folder or `tiny`: its autoencoder is kept, "
        "its UNet trained on; null: from scratch",
    )


def run(config: Config) -> None:
    """Draw phantoms, train autoencoder, decoder, text encoder, then the UNet; write the folder.

    Called again with the same work folder and the same settings, `minutes_limit` aside, it
    continues where it stopped.
    """
    from didgen.downstream.features import lite0_features
    from didgen.tiny.loop import OutOfTime
    from didgen.tiny.pretraining import Recipe, begun_from, pretrain

    limit = config.minutes_limit
    recipe = Recipe(
        images=config.images,
        vae_steps=config.vae_steps,
        decoder_steps=config.decoder_steps,
        text_steps=config.text_steps,
        unet_steps=config.unet_steps,
        seed=config.seed,
        workers=config.workers,
        start=config.start,
        prompts=config.prompts,
        deadline=None if limit is None else time.monotonic() + 60 * limit,
    )
    # The record travels with the weights: how they were made, not where.
    record = config.model_dump(mode="json", exclude={"out", "work", "start"})
    if config.start is not None:
        record |= begun_from(config.start)
    try:
        pretrain(recipe, describe, lite0_features(), config.out, config.work, record)
    except OutOfTime as stop:
        LOGGER.warning("%s; the same command continues from there", stop)


def describe(image: "np.ndarray", mask: "np.ndarray", label: str) -> tuple[str, str]:
    """The captions of an image and of its mirror image, measured with its true mask.

    Shapes: image uint8 (H, W, 3), mask bool (H, W).
    """
    from didgen.captions.attributes import flip_horizontal
    from didgen.captions.measure import measure
    from didgen.captions.sentence import write_sentence

    attributes = measure(image, mask, label).attributes
    return write_sentence(attributes), write_sentence(flip_horizontal(attributes))
