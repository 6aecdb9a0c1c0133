"""Settings of `controlnet`, a method of the section `methods`."""

from pydantic import Field

from didgen.settings.base import Conditioned


class Settings(Conditioned):
    """Beside these it has the budget of the section `finetune`; see docs."""

    prompt_dropout: float = Field(
        0.1,
        ge=0,
        le=1,
        description="share of images trained with an empty prompt; ControlNet's paper: 0.5",
    )
