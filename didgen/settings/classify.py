"""Settings of `classify`."""

from pathlib import Path

from pydantic import Field, field_validator

from didgen.settings.arms import check_task
from didgen.settings.base import Place, Seeded
from didgen.settings.metrics import ClassificationMetric
from didgen.settings.schedule import Schedule


class Settings(Schedule):
    """Which classifier, and how it is trained."""

    model: str = Field("efficientnet_lite0", description="classifier, any timm model name")
    pretrained: bool = Field(
        True,
        description="start from pretrained weights: those of `weights`, or EfficientNet-Lite0's "
        "packaged ImageNet ones; other models start from scratch",
    )
    weights: Place | None = Field(
        None,
        description="a .safetensors file of the model's pretrained weights under timm's names, or "
        "`hub`: those that timm publishes, else from scratch, as metrics.json then says",
    )


class Config(Settings, Seeded, ClassificationMetric):
    """Settings and paths of the stage."""

    train: Path = Field(description="manifest of the real training images")
    val: Path = Field(description="manifest of the real validation images")
    test: Path = Field(description="manifest of the real test images")
    synthetic: Path | None = Field(
        None,
        description="metadata.csv of the synthetic images; duplicates match their number; pairs in "
        "it, which only carry the label of their mask's image, are left out",
    )
    arm: str = Field(
        description="original, classic, duplicates, oversampled, weighted, pseudo (or "
        "pseudo_labels), synthetic_only or the name of a synthetic set; -0.5x after it or after "
        "duplicates: half as many images as real ones"
    )
    out: Path = Field(description="folder to write: predictions.csv, metrics.json, curves.csv")
    state: Path | None = Field(
        None, description="folder for resumable state, removed when done; null: start anew"
    )

    @field_validator("arm")
    @classmethod
    def _arm_is_known(cls, value: str) -> str:
        return check_task(value, "classification")
