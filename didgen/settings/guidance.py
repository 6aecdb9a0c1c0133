"""Layout guidance (Eq. 5, 6): how the latents are moved."""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from didgen.settings.base import SettingsSection

ReadPath = Literal["all", "to-coarse", "down"]


class LayoutGuidance(SettingsSection):
    """Settings of Eq. 6. Each step costs a pass of the UNet with gradient; see docs/method.md."""

    eta: float = Field(
        20.0, ge=0, le=1e6, description="step of Eq. 6; the paper: 20; 0: no guidance"
    )
    guided_fraction: float = Field(
        0.5, ge=0, le=1, description="share of the steps, from the first, that are guided"
    )
    reading: Literal["minmax", "raw", "foreground-background"] = Field(
        "minmax",
        description="attention maps in L_CA: scaled to [0, 1], raw, or the released code's ratio",
    )
    self_normalization: Literal["mean", "sum"] = Field(
        "sum",
        description="the sum over the pixels of a region in L_SA (Eq. 5): `sum` as printed, `mean` "
        "as released, which all but switches the term off",
    )
    cross_normalization: Literal["mean", "sum"] = Field(
        "mean", description="the sum over a map's pixels in L_CA: `sum` as Eq. 3 is printed"
    )
    cross_weight: float = Field(1.0, ge=0, le=1e6, description="factor of L_CA; 0 leaves it out")
    self_weight: float = Field(1.0, ge=0, le=1e6, description="factor of L_SA; 0 leaves it out")
    self_regions: Literal["both", "lesion"] = Field(
        "both", description="regions of L_SA: lesion and skin, as printed, or as released `lesion`"
    )
    smoothing_sigma: float = Field(
        math.sqrt(0.5),
        ge=0,
        le=10,
        # Attend-and-Excite and its descendants call this filter "sigma 0.5", but their formula
        # exp(-((x - m) / (2 s))^2) is a Gaussian of s * sqrt(2).
        description="standard deviation of the 3x3 Gaussian over the maps of L_CA, cells of "
        "a map; the paper gives none; 0: no smoothing, as released",
    )
    schedule: Literal["constant", "sqrt-linear"] = Field(
        "constant", description="eta over the steps: as printed, or falling as released"
    )
    guide_every: int = Field(
        2, ge=1, le=1000, description="guide each n-th step of the guided range; the paper: 1"
    )
    guide_layers: ReadPath = Field(
        "all",
        description="attention layers that guidance reads: all, those up to the coarsest of the "
        "way up, or those of the way down alone; fewer are cheaper",
    )
    reuse_prediction: bool = Field(
        True,
        description="take the guided pass's output for the step's conditional prediction; the "
        "paper: false",
    )

    @model_validator(mode="after")
    def _one_term_is_left(self) -> Self:
        if not (self.cross_weight or self.self_weight):
            raise ValueError(
                "cross_weight and self_weight: found 0 for both, expected one above 0; to sample "
                "without guidance set eta: 0"
            )
        return self
