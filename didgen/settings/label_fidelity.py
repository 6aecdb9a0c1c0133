"""Settings of `label_fidelity`."""

from pathlib import Path

from pydantic import Field

from didgen.settings.base import SettingsSection
from didgen.settings.label_judges import Settings as JudgesSettings


class Level(SettingsSection):
    """What the judging itself has to know."""

    confidence: float = Field(0.95, gt=0.5, lt=1, description="level of the intervals")


class Settings(Level, JudgesSettings):
    """How the judges are trained, once for all sets, and how sure their judgement is."""


class Config(Level):
    """Settings and paths of the stage."""

    synthetic: Path = Field(description="metadata.csv of the synthetic images")
    judges: Path = Field(description="folder of `label_judges`")
    out: Path = Field(description="folder to write: label_fidelity.json, judgements.csv")
