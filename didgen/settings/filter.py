"""Settings of `filter`."""

from pathlib import Path

from pydantic import Field, model_validator

from didgen.settings.base import SettingsSection


class Settings(SettingsSection):
    """The bounds within which a pair is kept; null switches a bound off."""

    min_layout_iou: float | None = Field(
        0.5, ge=0, le=1, description="IoU of annotated mask and condition mask, at least"
    )
    min_segmenter_iou: float | None = Field(
        0.5,
        ge=0,
        le=1,
        description="IoU of annotated mask and what a segmenter trained on the real training "
        "images alone finds in the image, at least",
    )
    min_contrast: float | None = Field(
        0.6,
        ge=0,
        le=1,
        description="contrast of the attention map (part of its variance between lesion and skin), "
        "at least",
    )
    min_area: float | None = Field(0.005, ge=0, le=1, description="share of the image, at least")
    max_area: float | None = Field(0.95, ge=0, le=1, description="share of the image, at most")
    max_border_contact: float | None = Field(
        0.9, ge=0, le=1, description="share of the image's outermost pixels in the mask, at most"
    )
    max_pale_outside: float | None = Field(
        0.05,
        ge=0,
        le=1,
        description="share of the skin that is much lighter (40 of 255) than its median, at most: "
        "glows that strong guidance can draw beside the lesion",
    )
    shown: int = Field(24, ge=0, le=400, description="rejected pairs drawn on the contact sheet")

    @model_validator(mode="after")
    def _area_is_a_range(self) -> "Settings":
        low, high = self.min_area, self.max_area
        if low is not None and high is not None and low > high:
            raise ValueError(
                f"min_area {low} lies above max_area {high}: nothing would be "
                "kept; swap them or set one to null"
            )
        return self


class Config(Settings):
    """Settings and paths of the stage."""

    pairs: tuple[Path, ...] = Field(description="folders written by the pairs stage")
    segmenter: Path = Field(
        description="segmenter.safetensors of the segment stage, arm original: trained on the real "
        "training images alone"
    )
    out: Path = Field(
        description="folder to write: scores.csv, kept.csv, rejected.csv, rejected.png, "
        "summary.json, curve.json"
    )
