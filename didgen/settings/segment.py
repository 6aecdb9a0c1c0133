"""Settings of `segment`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from didgen.settings.arms import check_task
from didgen.settings.base import Place, Seeded
from didgen.settings.metrics import SegmentationMetric
from didgen.settings.schedule import Schedule

Model = Literal["unet", "unet++", "deeplabv3+", "segformer", "dcsau-net", "xbound-former"]
Channels = Annotated[int, Field(ge=1, le=4096)]


class Settings(Schedule):
    """Which segmenter, and how it is trained."""

    model: Model = Field(
        "unet", description="segmenter; the last two, the paper's, have their own encoder"
    )
    encoder: str = Field(
        "efficientnet_lite0",
        description="encoder of the others, a timm name, or mit_b0 to mit_b5 for `segformer`",
    )
    pretrained: bool = Field(
        True,
        description="start the encoder from pretrained weights: those of `weights`, or "
        "EfficientNet-Lite0's packaged ImageNet ones; others start from scratch",
    )
    weights: Place | None = Field(
        None,
        description="a .safetensors file of the encoder's pretrained weights under timm's names "
        "(of `xbound-former`: pvt_v2_b2's), or `hub`: those that timm publishes, else from "
        "scratch, as metrics.json then says",
    )
    decoder_channels: tuple[Channels, Channels, Channels, Channels, Channels] = Field(
        (128, 64, 32, 16, 16),
        description="channels of the decoder of `unet` and `unet++`, coarse to fine",
    )
    steps: int = Field(
        80, ge=1, le=10_000_000, description="optimiser steps at most, equal for every arm"
    )
    patience: int = Field(
        20,
        ge=1,
        le=10_000_000,
        description="evaluations without a better one before training stops",
    )

    @model_validator(mode="after")
    def _norms_see_two_images(self) -> "Settings":
        if self.model == "dcsau-net" and self.batch_size < 2:
            raise ValueError(
                f"batch_size: found {self.batch_size}, expected at least 2: some of DCSAU-Net's "
                "batch norms see one value of each image"
            )
        return self


class Config(Settings, Seeded, SegmentationMetric):
    """Settings and paths of the stage."""

    train: Path = Field(description="manifest of the real training images")
    val: Path = Field(description="manifest of the real validation images")
    test: Path = Field(description="manifest of the real test images")
    synthetic: Path | None = Field(
        None, description="metadata.csv of the lesion-mask pairs; duplicates match their number"
    )
    arm: str = Field(
        description="original, classic, duplicates, pseudo (or pseudo_masks), synthetic_only or "
        "the name of a synthetic set; -0.5x after it or after duplicates: half as many images as "
        "real ones"
    )
    out: Path = Field(
        description="folder to write: scores.csv, metrics.json, curves.csv, segmenter.safetensors"
    )
    state: Path | None = Field(
        None, description="folder for resumable state, removed when done; null: start anew"
    )

    @field_validator("arm")
    @classmethod
    def _arm_is_known(cls, value: str) -> str:
        return check_task(value, "segmentation")
