"""Masks from attention (Eq. 7): how the map is sharpened, enlarged, cut and cleaned."""

from typing import Literal

from pydantic import Field

from didgen.settings.base import SettingsSection


class Cleaning(SettingsSection):
    """How a thresholded mask is cleaned. The paper closes it only; the rest is ours."""

    closing_fraction: float = Field(
        1 / 64,
        ge=0,
        le=1,
        description="radius of the mask's closing, share of the image's shorter "
        "side; the paper gives none. Under one pixel: no closing",
    )
    fill_holes: bool = Field(True, description="fill the holes of a mask; the paper: false")
    max_hole: float = Field(
        1.0, ge=0, le=1, description="only holes up to this share of the image are filled"
    )
    keep_largest: bool = Field(
        True, description="keep the largest piece of a mask alone; the paper: false"
    )
    min_piece: float = Field(
        0.0, ge=0, le=1, description="drop pieces smaller than this share of the image"
    )


class AnnotationSettings(Cleaning):
    """Settings of Eq. 7, which pairs and held-out real images share."""

    tau: int = Field(
        4, ge=0, le=100, description="power of the self-attention map in Eq. 7; the paper: 4"
    )
    power: Literal["matrix", "elementwise"] = Field(
        "matrix",
        description="what tau is a power of: the matrix, as released, or each of its entries, as "
        "the notation of Eq. 7 also allows",
    )
    last_steps: int = Field(
        1,
        ge=1,
        le=1000,
        description="last sampling steps whose maps are averaged in Eq. 7; the paper: 1",
    )
    upsampling: Literal["bicubic", "guided-filter"] = Field(
        "bicubic",
        description="from the 32x32 map of Eq. 7 to the image: smooth, or with the image's edges",
    )
    filter_radius: float = Field(
        1 / 32,
        gt=0,
        le=1,
        description="`guided-filter`: radius of its windows, share of the image's shorter side",
    )
    filter_epsilon: float = Field(
        1e-3,
        gt=0,
        le=1,
        description="`guided-filter`: variance of the image, in [0, 1], that is taken for noise",
    )
