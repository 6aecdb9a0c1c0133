"""Settings of `augment`."""

from pathlib import Path

from pydantic import Field

from didgen.settings.base import SettingsSection


class Settings(SettingsSection):
    """Nothing to set: all images and, of the pairs, all that the filter keeps are gathered."""


class Config(Settings):
    """Paths of the stage."""

    images: tuple[Path, ...] = Field((), description="folders written by the images stage")
    pairs: tuple[Path, ...] = Field((), description="folders written by the pairs stage")
    scores: Path | None = Field(
        None, description="scores.csv of the filter stage, which says what is kept; null: all pairs"
    )
    out: Path = Field(description="folder to write: images/, masks/, metadata.csv")
