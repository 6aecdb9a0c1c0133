"""Settings of `export`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from didgen.settings.base import Seed, SettingsSection
from didgen.settings.sets import OWN

Format = Literal["imagefolder", "nnunet", "coco", "yolo", "isic_task1", "isic_task3"]
SUBMISSIONS = ("isic_task1", "isic_task3")


class Config(SettingsSection):
    """What is exported, and where it lies."""

    format: Format = Field(
        description="`imagefolder` of Hugging Face datasets, `nnunet` (v2), `coco` polygons, "
        "`yolo` segmentation, or the test predictions of a network as a submission to ISIC 2018: "
        "`isic_task1` masks, `isic_task3` probabilities"
    )
    run_dir: Path = Field(description="folder of the run, results/<run>")
    set: str = Field(
        OWN,
        pattern=r"^[a-z][a-z0-9_]*$",
        description="synthetic set: `synthetic`, the run's own, or the name of a method",
    )
    generator: int = Field(
        0, ge=0, le=100, description="whose set: 0, the first, or one of `generator_seeds` more"
    )
    real: bool = Field(
        False,
        description="write the run's real images too, with ATTRIBUTION.md; their licences decide "
        "whether the export may then be passed on. false: only their ids",
    )
    arm: str | None = Field(
        None,
        pattern=r"^[a-z][a-z0-9_]*(-\d+(\.\d+)?x)?$",
        description="of a submission: the arm whose network predicts",
    )
    seed: Seed = Field(0, description="of a submission: the seed of that network")
    out: Path = Field(description="folder to write")

    @model_validator(mode="after")
    def _a_submission_is_of_a_network(self) -> "Config":
        if (self.format in SUBMISSIONS) != (self.arm is not None):
            raise ValueError(
                f"found format {self.format} and arm {self.arm}, expected an arm such as "
                f"`original` for {' and '.join(SUBMISSIONS)}, and for them alone"
            )
        return self
