"""Settings of `external_data`: those of `data`, whose key `external` it reads."""

from pathlib import Path

from pydantic import Field

from didgen.settings.data import ReadSource


class Config(ReadSource):
    """Settings and paths of the stage."""

    train: Path = Field(description="manifest of the training images")
    val: Path = Field(description="manifest of the validation images")
    sets: tuple[Path, ...] = Field(
        (), description="metadata.csv of synthetic sets from elsewhere, which networks learn from"
    )
    out: Path = Field(description="folder to write: of each set <name>/test.csv, its images, masks")
