"""Settings of `fidelity`."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from didgen.settings.base import Place, Seeded

Space = Literal["efficientnet-lite0", "inception", "dinov2"]


class Settings(Seeded):
    """Against which real images, and in which feature spaces."""

    reference: Literal["test", "train"] = Field(
        "test",
        description="real images compared with. test: held out, so that copies of training images "
        "gain nothing; train: more images, and what is usual in the literature",
    )
    spaces: tuple[Space, ...] = Field(
        ("efficientnet-lite0",),
        min_length=1,
        description="networks whose features are compared; the first needs no file. `inception` "
        "gives FID and KID",
    )
    inception_weights: Place | None = Field(
        None, description="of `inception`: a .safetensors file of torch-fidelity's, or `hub`"
    )
    dinov2_weights: Place | None = Field(
        None, description="of `dinov2`: a .safetensors file of timm's ViT-S/14, or `hub`"
    )
    lpips_weights: Place | None = Field(
        None,
        description="for LPIPS: a .safetensors file of torchvision's AlexNet, or `hub`; null: a "
        "distance of the same form in EfficientNet-Lite0, which is not LPIPS",
    )
    match_classes: bool = Field(
        True, description="draw both sets so that every class has the same number in both"
    )
    neighbours: int = Field(
        5, ge=1, le=1000, description="k of precision, recall, density and coverage"
    )
    pairs: int = Field(
        200, ge=2, le=1_000_000, description="image pairs of each mean of MS-SSIM and LPIPS"
    )
    pair_side: int = Field(
        256,
        ge=176,
        le=4096,
        description="side in px at which pairs are compared; MS-SSIM needs 176",
    )
    repeats: int = Field(100, ge=10, le=100_000, description="halves drawn for each interval")
    splits: int = Field(
        10, ge=2, le=10_000, description="halvings of the real images for their own distance"
    )
    max_images: int = Field(
        4000,
        ge=100,
        le=1_000_000,
        description="images of a set at most, drawn: all pairs of them are compared",
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="level of the intervals")


class Config(Settings):
    """Settings and paths of the stage."""

    synthetic: Path = Field(description="metadata.csv of the synthetic images")
    train: Path = Field(description="manifest of the real training images")
    test: Path = Field(description="manifest of the real test images")
    out: Path = Field(description="folder to write: fidelity.json, measures.csv, config.json")
