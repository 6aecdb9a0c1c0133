"""Settings of `report`."""

from pathlib import Path

from pydantic import Field

from didgen.settings.base import SettingsSection


class Settings(SettingsSection):
    """How much the page shows; all numbers are always computed from everything."""

    samples_per_class: int = Field(
        6, ge=0, le=48, description="real and, as many, synthetic images shown of each class"
    )
    pairs: int = Field(12, ge=0, le=200, description="lesion-mask pairs shown")
    panels: int = Field(8, ge=0, le=200, description="panels of attention maps shown")
    picture_side: int = Field(
        192,
        ge=32,
        le=1024,
        description="shorter side of embedded pictures at most, px; of panels, twice that",
    )
    picture_quality: int = Field(84, ge=40, le=98, description="JPEG quality of embedded pictures")


class Config(Settings):
    """Settings and paths of the stage."""

    run_dir: Path = Field(description="folder of the run, results/<run>")
    out: Path = Field(description="page to write, e.g. results/<run>/report/index.html")
