"""Settings of `pretrain-tiny`."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from didgen.settings.base import Seeded, Tracked


class Settings(Seeded, Tracked):
    """Length and size of the pretraining."""

    images: int = Field(6144, ge=1, le=10_000_000, description="phantom photographs to learn from")
    vae_steps: int = Field(
        4200, ge=1, le=10_000_000, description="steps of the autoencoder, 16 crops each"
    )
    decoder_steps: int = Field(
        1000,
        ge=1,
        le=10_000_000,
        description="steps of the decoder alone, with features, 8 crops a worker",
    )
    text_steps: int = Field(
        600,
        ge=1,
        le=10_000_000,
        description="steps of the text encoder, matching 128 captions and images each",
    )
    unet_steps: int = Field(
        8000, ge=1, le=10_000_000, description="steps of the UNet, 8 images each"
    )
    prompts: Literal["attributes", "shuffled", "diagnosis"] = Field(
        "attributes",
        description="what text encoder and UNet read; controls: `shuffled`, the captions of other "
        "images of the class, and `diagnosis`, nothing else",
    )
    minutes_limit: float | None = Field(
        None,
        gt=0,
        le=1_000_000,
        description="minutes after which to stop and keep the state; null: none",
    )
    workers: int = Field(
        2, ge=1, le=256, description="processes that draw phantoms and share each training step"
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
