"""Settings of `maps`."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from didgen.settings.annotation import AnnotationSettings
from didgen.settings.base import Seeded, SettingsSection


class Settings(SettingsSection):
    """Which held-out images are looked at, and at what noise."""

    images: int = Field(
        48, ge=1, le=1_000_000, description="held-out images with a mask, drawn by seed"
    )
    timestep: int = Field(100, ge=0, lt=1000, description="diffusion timestep of the small noise")
    panels: int = Field(8, ge=0, le=10_000, description="images drawn as panels for the report")
    prompt: Literal["prefix", "caption"] = Field(
        "prefix",
        description="`prefix`: the same for all images, says nothing of them; `caption`: each "
        "image's own, which may name the place and size of its lesion",
    )
    truth_panels: int = Field(
        2, ge=0, le=1000, description="images drawn of each: best, median and worst annotated mask"
    )
    batch_size: int = Field(16, ge=1, le=1024, description="images encoded together")


class Config(Settings, Seeded):
    """Settings and paths of the stage."""

    manifest: Path = Field(description="manifest of held-out images")
    captions: Path = Field(description="captions.csv of the caption stage")
    backbone: Path = Field(description="fine-tuned diffusers folder")
    pairs: AnnotationSettings = Field(
        AnnotationSettings(), description="the keys of section `pairs` that say how masks are read"
    )
    out: Path = Field(description="folder to write: maps.json, panels/, truth/")
