"""Settings of `label_judges`, which are part of the section `label_fidelity`."""

from pathlib import Path

from pydantic import Field

from didgen.settings.base import Seeded
from didgen.settings.classify import Settings as ClassifySettings


class Settings(Seeded):
    """How the judges are trained."""

    folds: int = Field(
        3,
        ge=2,
        le=20,
        description="classifiers, each trained on the real images of all folds but one",
    )


class Config(Settings):
    """Settings and paths of the stage."""

    classifier: ClassifySettings = Field(
        ClassifySettings(), description="the classifier and its training, as of `classify`"
    )
    train: Path = Field(description="manifest of the real training images")
    val: Path = Field(description="manifest of the real validation images, for early stopping")
    state: Path | None = Field(
        None, description="folder for resumable state, removed when done; null: start anew"
    )
    out: Path = Field(description="folder to write: the classifiers, judges.json, judgements.csv")
