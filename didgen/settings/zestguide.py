"""Settings of `zestguide`, a method of the section `methods`."""

from pydantic import Field

from didgen.settings.base import Conditioned


class Settings(Conditioned):
    """How the latents are moved; the authors' values are those of their code for SD 1.4."""

    step_size: float = Field(
        0.3,
        ge=0,
        le=1e3,
        description="largest move of a latent value in a step, in latent units, times the step's "
        "share of noise, sqrt(1 - alpha-bar); the authors: 0.3; 0: no guidance",
    )
    guided_fraction: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of the steps, from the first, that are guided; the authors: 0.5",
    )
