"""Settings of `pairs`."""

from typing import Literal, Self

from pydantic import Field, model_validator

from didgen.settings.annotation import AnnotationSettings
from didgen.settings.base import Code, Seeded
from didgen.settings.guidance import LayoutGuidance
from didgen.settings.sampling import Sampling, SamplingPaths


class Settings(AnnotationSettings, LayoutGuidance, Sampling):
    """How many pairs, and how they are guided and annotated."""

    method: Literal["didgen"] = Field("didgen", description="method of synthesis")
    count: int = Field(100, ge=1, description="pairs to make; the paper: 2500")
    conditions: Literal["training", "augmented", "sampled"] = Field(
        "training",
        description="layouts to follow: `training`: masks of training images; `augmented`: these "
        "turned, mirrored, scaled, shifted and bent; `sampled`: new shapes between two of them, "
        "from a shape model. For the latter two, captions say the new size, place and shape",
    )

    @model_validator(mode="after")
    def _last_steps_are_steps(self) -> Self:
        if self.last_steps > self.steps:
            raise ValueError(
                f"last_steps: found {self.last_steps}, expected at most steps, {self.steps}"
            )
        return self


class Config(Settings, SamplingPaths, Seeded):
    """Settings and paths of the stage."""

    classes: tuple[Code, ...] | None = Field(
        None, description="diagnoses that the backbone was trained on; null: all"
    )
