"""Settings of the method `pix2pixhd`."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from didgen.settings.base import MaskReader, Place, Preset


class Settings(Preset, MaskReader):
    """pix2pixHD: its size and its schedule, for the one model of all diagnoses."""

    paper: ClassVar[Mapping[str, Any]] = {
        "checkpoint_every": 5_000,
        "channel_share": 1.0,
        "downsamplings": 4,
        "blocks": 9,
        "epochs": 100,
        "decay_epochs": 100,
        "training_batch": 1,
        "learning_rate": 2e-4,
        "vgg_weights": "hub",
    }

    channel_share: float = Field(
        0.125, gt=0, le=1, description="channels of every layer, as a share of the source's"
    )
    downsamplings: int = Field(
        3,
        ge=1,
        le=5,
        description="times that the generator halves the side; the images' side is a multiple of "
        "2 to this power. The source: 4",
    )
    blocks: int = Field(
        3, ge=1, le=100, description="residual blocks at the smallest side; the source: 9"
    )
    epochs: int = Field(
        2,
        ge=1,
        le=100_000,
        description="passes over the images at the full learning rate; the source: 100",
    )
    decay_epochs: int = Field(
        2,
        ge=0,
        le=100_000,
        description="further passes, in which the learning rate falls to 0; the source: 100",
    )
    training_batch: int = Field(1, ge=1, le=1024, description="images a step; the source: 1")
    learning_rate: float = Field(
        2e-4, gt=0, le=1e-2, description="of both networks, by Adam; the source: 2e-4"
    )
    vgg_weights: Place | None = Field(
        None,
        description="for the perceptual loss: a .safetensors file of torchvision's VGG19, or "
        "`hub`; null: without this loss, which the source has",
    )
    checkpoint_every: int = Field(
        1000, ge=1, le=10_000_000, description="steps between saved states"
    )
