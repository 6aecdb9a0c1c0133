"""Settings of `images`."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from didgen.settings.base import Code, Seeded
from didgen.settings.sampling import Sampling, SamplingPaths


class Settings(Sampling):
    """How many images of which class, and how they are sampled."""

    method: Literal["didgen"] = Field("didgen", description="method of synthesis")
    classes: tuple[Code, ...] | None = Field(
        None, description="diagnoses to synthesize; null: all that the training set has"
    )
    per_class: int = Field(40, ge=1, description="images a class; the paper: 1000")
    prompts: Literal["dermprompt", "prefix", "recombined", "llm"] = Field(
        "dermprompt",
        description="`dermprompt`: captions of the class's training images; `recombined`: new ones "
        "from the attributes of two of them; `llm`: new ones by the language model that wrote the "
        "captions; `prefix`: the prefix and the diagnosis only",
    )


class Config(Settings, SamplingPaths, Seeded):
    """Settings and paths of the stage."""

    prompts_file: Path | None = Field(
        None, description="prompts.csv of the prompts stage, for `prompts: llm`"
    )
