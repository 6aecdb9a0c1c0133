"""Settings of the method `sl_stylegan`."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from didgen.settings.base import Preset


class Settings(Preset):
    """SL-StyleGAN: its size and its schedule, for the model of each diagnosis."""

    paper: ClassVar[Mapping[str, Any]] = {
        "channel_share": 1.0,
        "training_steps": 20_000,
        "training_batch": 16,
        "learning_rate": 1e-4,
    }

    channel_share: float = Field(
        0.125, gt=0, le=1, description="channels of every layer, as a share of the source's"
    )
    training_steps: int = Field(
        200,
        ge=1,
        le=10_000_000,
        description="steps of each diagnosis's model, each one of the discriminator and one of the "
        "generator; the source: 20000",
    )
    training_batch: int = Field(
        8,
        ge=1,
        le=1024,
        description="images a step; a diagnosis needs as many at least. The source: 16",
    )
    learning_rate: float = Field(
        5e-4, gt=0, le=1e-2, description="of both networks, by Adam; the source: 1e-4"
    )
    checkpoint_every: int = Field(
        500, ge=1, le=10_000_000, description="steps between saved states"
    )
