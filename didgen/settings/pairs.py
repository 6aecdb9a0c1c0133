"""Settings of `pairs`: those of any method, and each method's own."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag, model_validator

from didgen.settings.annotation import AnnotationSettings
from didgen.settings.base import Code, Seeded
from didgen.settings.guidance import LayoutGuidance
from didgen.settings.methods import check_makes
from didgen.settings.sampling import Batches, Sampling, SetPaths


class Pairs(Batches):
    """How many pairs."""

    count: int = Field(100, ge=1, le=10_000_000, description="pairs to make; the paper: 2500")


class DidgenPairs(AnnotationSettings, LayoutGuidance, Sampling, Pairs):
    """How many pairs, and how they are guided and annotated."""

    method: Literal["didgen"] = Field("didgen", description="method of synthesis")
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


class WarpPairs(Pairs):
    """How many pairs of real lesions, warped and blended onto other people's skin."""

    method: Literal["warp"] = Field("warp", description="method of synthesis")


def method_of(section: Any) -> str:
    """The method that a section names, or the default. Raises: `ValueError` for an unfit one."""
    name = section.get("method") if isinstance(section, dict) else getattr(section, "method", None)
    return check_makes(name or "didgen", "pairs")


def _of_a_method(section: Any) -> Any:
    """Refuse an unfit method as a fault of the section: pydantic passes a discriminator's on."""
    method_of(section)
    return section


Settings = Annotated[
    Annotated[DidgenPairs, Tag("didgen")] | Annotated[WarpPairs, Tag("warp")],
    Discriminator(method_of),
    BeforeValidator(_of_a_method),
]


class _Paths(SetPaths, Seeded):
    """Paths of the stage."""

    classes: tuple[Code, ...] | None = Field(
        None, description="diagnoses that the method was trained on; null: all"
    )


class Config(DidgenPairs, _Paths):
    """Settings and paths of the stage, with the default method."""


class WarpConfig(WarpPairs, _Paths):
    """Settings and paths of the stage, with `warp`."""


AnyConfig = Config | WarpConfig


def config_of(section: dict) -> type[BaseModel]:
    """The settings and paths of the method that a section names."""
    kinds: dict[str, type[BaseModel]] = {"didgen": Config, "warp": WarpConfig}
    return kinds[method_of(section)]
