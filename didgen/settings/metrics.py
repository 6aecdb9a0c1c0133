"""The metrics that decide, and that early stopping looks at: one for each task."""

from typing import Literal

from pydantic import Field

from didgen.settings.base import SettingsSection


class ClassificationMetric(SettingsSection):
    """What decides on classification."""

    classification_metric: Literal["balanced accuracy", "macro F1", "accuracy"] = Field(
        "balanced accuracy",
        description="what decides on classification, and what early stopping looks at",
    )


class SegmentationMetric(SettingsSection):
    """What decides on segmentation."""

    segmentation_metric: Literal["Dice", "IoU"] = Field(
        "Dice",
        description="what decides on segmentation, averaged over images, and what early stopping "
        "looks at",
    )
