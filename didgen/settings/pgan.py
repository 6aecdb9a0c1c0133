"""Settings of the method `pgan`."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from didgen.settings.base import Preset


class Settings(Preset):
    """Progressive GAN: its size and its schedule, for the model of each diagnosis."""

    paper: ClassVar[Mapping[str, Any]] = {
        "checkpoint_every": 10_000,
        "channel_share": 1.0,
        "first_steps": 48_000,
        "level_steps": 96_000,
        "fade": 0.2,
        "training_batch": 16,
        "learning_rate": 1e-3,
    }

    channel_share: float = Field(
        0.0625, gt=0, le=1, description="channels of every layer, as a share of the source's"
    )
    first_steps: int = Field(
        40,
        ge=1,
        le=10_000_000,
        description="steps of each diagnosis's model at 4 px, each one of the discriminator and "
        "one of the generator; pytorch_GAN_zoo: 48000",
    )
    level_steps: int = Field(
        40,
        ge=1,
        le=10_000_000,
        description="steps at each further side, 8 px, 16 px, ...; pytorch_GAN_zoo: 96000",
    )
    fade: float = Field(
        0.2,
        ge=0,
        le=1,
        description="share of these steps in which the new layers fade in; Karras et al.: 0.5",
    )
    training_batch: int = Field(
        8,
        ge=4,
        le=1024,
        multiple_of=4,
        description="images a step; a diagnosis needs as many at least. pytorch_GAN_zoo: 16",
    )
    learning_rate: float = Field(
        1e-3, gt=0, le=1e-2, description="of both networks, by Adam; Karras et al.: 1e-3"
    )
    checkpoint_every: int = Field(
        500, ge=1, le=10_000_000, description="steps between saved states"
    )
