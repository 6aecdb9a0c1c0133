"""Settings of `prompts`."""

from pathlib import Path

from pydantic import Field

from didgen.settings.base import Code, Seeded, SettingsSection

# Near-duplicates: also for prompts that are recombined without a language model.
MAX_OVERLAP = 0.9


class Settings(SettingsSection):
    """How a language model is asked for prompts."""

    examples: int = Field(6, ge=1, le=40, description="DermPrompts of the class that it is shown")
    temperature: float = Field(0.8, ge=0, le=2, description="how freely it answers")
    tries: int = Field(
        3,
        ge=1,
        le=20,
        description="times a prompt is asked for before one is recombined instead",
    )
    max_overlap: float = Field(
        MAX_OVERLAP,
        gt=0,
        le=1,
        description="share of common words above which prompts are near-duplicates",
    )


class Config(Settings, Seeded):
    """Settings and paths of the stage."""

    train: Path = Field(description="manifest of the training images")
    captions: Path = Field(description="captions.csv of the caption stage")
    captioner: Path = Field(description="config.json of the caption stage: which model to ask")
    backbone: Path = Field(description="fine-tuned diffusers folder: its tokenizer sets the limit")
    per_class: int = Field(ge=1, le=1_000_000, description="prompts a class")
    classes: tuple[Code, ...] | None = Field(
        None, description="diagnoses to write for; null: all that the training set has"
    )
    state: Path | None = Field(None, description="folder of the model's answers; null: in `out`")
    out: Path = Field(description="folder to write: prompts.csv, statistics.json")
