"""Settings of `images`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from didgen.settings.base import Code, Seeded
from didgen.settings.methods import check_makes
from didgen.settings.sampling import Sampling, SetPaths


class Settings(Sampling):
    """How many images of which class, and how they are sampled."""

    classes: tuple[Code, ...] | None = Field(
        None, description="diagnoses to synthesize; null: all that the training set has"
    )
    per_class: int = Field(40, ge=1, le=1_000_000, description="images a class; the paper: 1000")
    prompts: Literal["dermprompt", "prefix", "recombined", "llm"] = Field(
        "dermprompt",
        description="`dermprompt`: captions of the class's training images; `recombined`: new ones "
        "from the attributes of two of them; `llm`: new ones by the language model that wrote the "
        "captions; `prefix`: the prefix and the diagnosis only",
    )


class Config(Settings, SetPaths, Seeded):
    """Settings and paths of the stage."""

    prompts_file: Path | None = Field(
        None, description="prompts.csv of the prompts stage, for `prompts: llm`"
    )

    @field_validator("method")
    @classmethod
    def _makes_images(cls, name: str) -> str:
        return check_makes(name, "images")
