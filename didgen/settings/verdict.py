"""Settings of `verdict`."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from didgen.settings.base import Seed, Seeded


class Settings(Seeded):
    """What is compared and how sure is sure, stated before anything is measured."""

    treatment: str = Field(
        "synthetic", description="the arm whose verdict leads; other synthetic arms follow it"
    )
    classification_metric: Literal["balanced accuracy", "macro F1", "accuracy"] = Field(
        "balanced accuracy", description="what decides on classification"
    )
    segmentation_metric: Literal["Dice", "IoU"] = Field(
        "Dice", description="what decides on segmentation, averaged over images"
    )
    confidence: float = Field(
        0.95, gt=0.5, lt=1, description="level of the interval; alpha of the test is 1 minus it"
    )
    margin: float = Field(
        0.0, ge=0, lt=1, description="difference that the interval must exceed for `helps`"
    )
    resamples: int = Field(
        10_000, ge=100, le=10_000_000, description="resamples of the interval and the test"
    )


class Config(Settings):
    """Settings and paths of the stage."""

    run: str = Field(description="name of the run")
    classify: Path | None = Field(
        None, description="folder of <arm>/seed<s>/predictions.csv and metrics.json"
    )
    segment: Path | None = Field(
        None, description="folder of <arm>/seed<s>/scores.csv and metrics.json"
    )
    classify_arms: tuple[str, ...] | None = Field(
        None, description="arms of classification to compare; null: every folder that is there"
    )
    segment_arms: tuple[str, ...] | None = Field(
        None, description="arms of segmentation to compare; null: every folder that is there"
    )
    seeds: tuple[Seed, ...] | None = Field(
        None, description="seeds to compare; null: every folder that is there"
    )
    out: Path = Field(description="verdict.json to write")
    tables: Path = Field(description="folder to write: arms.csv, comparisons.csv, tests.csv")
