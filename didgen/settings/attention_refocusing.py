"""Settings of `attention_refocusing`, a method of the section `methods`."""

from typing import Literal

from pydantic import Field

from didgen.settings.base import Conditioned


class Settings(Conditioned):
    """How the latents are moved. Its schedule is of 50 steps, whatever `steps`; see docs."""

    variant: Literal["mask", "box"] = Field(
        "mask",
        description="loss on cross-attention. `mask`: that of the paper's supplement, means over "
        "the mask; `box`: that of the authors' code, largest values in the mask's bounding box",
    )
    loss_scale: float = Field(
        40.0,
        ge=0,
        le=1e6,
        description="factor of the losses in the first five steps, three quarters and a quarter of "
        "it later. The authors: 4 with GLIGEN, about 40 advised for Stable Diffusion alone; 0: no "
        "guidance",
    )
