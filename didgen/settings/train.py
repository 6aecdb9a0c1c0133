"""Settings of `train`: methods beside the one whose fine-tuning has a section of its own."""

from pathlib import Path

from pydantic import Field, field_validator

from didgen.settings.finetune import Settings as FinetuneSettings
from didgen.settings.finetune import TrainingPaths
from didgen.settings.methods import check_trains
from didgen.settings.rivals import ByMethod


class Config(ByMethod, TrainingPaths):
    """Method and paths of the stage."""

    finetune: FinetuneSettings = Field(
        FinetuneSettings(),
        description="the section `finetune`, whose backbone and budget methods that train a "
        "Stable Diffusion have too",
    )
    backbone: Path | None = Field(
        None, description="fine-tuned backbone, for a method that builds on it"
    )

    @field_validator("method")
    @classmethod
    def _is_trained(cls, name: str) -> str:
        return check_trains(name)
