"""Settings of `train`: methods beside the one whose fine-tuning has a section of its own."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from didgen.settings.base import Seeded
from didgen.settings.methods import check_trains


class TrainingPaths(Seeded):
    """What the training of any method reads and writes."""

    train: Path = Field(description="manifest of the training images")
    val: Path | None = Field(
        None, description="manifest of validation images to look at during training; null: none"
    )
    captions: Path = Field(description="captions.csv of the caption stage")
    out: Path = Field(description="folder to write: the trained method")
    state: Path = Field(
        description="folder for resumable state and live logs; may be deleted when done"
    )


class Config(TrainingPaths):
    """Method and paths of the stage."""

    method: Annotated[str, AfterValidator(check_trains)] = Field(description="method to train")
