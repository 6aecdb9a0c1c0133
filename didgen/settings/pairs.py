"""Settings of `pairs`: the section, for the run's own method, and what other methods take of it."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from didgen.settings.annotation import AnnotationSettings
from didgen.settings.base import Code, Seeded
from didgen.settings.guidance import LayoutGuidance
from didgen.settings.methods import DIDGEN, check_makes
from didgen.settings.sampling import Sampling, SetPaths


class Pairs(Sampling):
    """How many pairs, and how they are sampled and annotated by any method that does so."""

    count: int = Field(100, ge=1, le=10_000_000, description="pairs to make; the paper: 2500")


class Settings(AnnotationSettings, LayoutGuidance, Pairs):
    """How many pairs, and how they are guided and annotated."""

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


class _Paths(SetPaths, Seeded):
    """Paths of the stage."""

    classes: tuple[Code, ...] | None = Field(
        None, description="diagnoses that the method was trained on; null: all"
    )


class Config(Settings, _Paths):
    """Settings and paths of the stage, with the run's own method."""


class RivalConfig(AnnotationSettings, Pairs, _Paths):
    """Settings and paths of the stage, with another method."""

    conditions: Literal["generated", "training"] | None = Field(
        None, description="masks that a method which reads them makes images for; null: it does not"
    )
    generated: tuple[Path, ...] = Field(
        (), description="folders of the run's own pairs, whose masks these are if `generated`"
    )

    @model_validator(mode="before")
    @classmethod
    def _of_the_section(cls, values: Any) -> Any:
        """Leave out the keys of the section that are the run's own method's."""
        if not isinstance(values, dict):
            return values
        own = (Settings.model_fields.keys() - cls.model_fields.keys()) | {"conditions"}
        return {key: value for key, value in values.items() if key not in own}

    @field_validator("method")
    @classmethod
    def _makes_pairs(cls, name: str) -> str:
        return check_makes(name, "pairs")

    @model_validator(mode="after")
    def _masks_are_there(self) -> Self:
        if self.conditions == "generated" and not self.generated:
            raise ValueError(
                "conditions: found generated, but no pairs whose masks to follow; name their "
                "folders (--generated), or set the method's conditions: training"
            )
        return self


AnyConfig = Config | RivalConfig


def config_of(section: dict) -> type[BaseModel]:
    """The settings and paths for the method that a stage is to work with."""
    return Config if section.get("method", DIDGEN) == DIDGEN else RivalConfig
