"""Settings of `verdict`."""

from pathlib import Path

from pydantic import Field, model_validator

from didgen.settings.base import Seed, Seeded
from didgen.settings.metrics import ClassificationMetric, SegmentationMetric


class Settings(Seeded, ClassificationMetric, SegmentationMetric):
    """What is compared and how sure is sure, stated before anything is measured."""

    treatment: str = Field(
        "synthetic", description="the arm whose verdict leads; other synthetic arms follow it"
    )
    control: str = Field(
        "duplicates",
        description="the arm without synthetic images that `treatment` is compared with, chosen "
        "before anything is measured. `duplicates`: as many more images and steps, nothing new",
    )
    confidence: float = Field(
        0.95, gt=0.5, lt=1, description="level of the intervals; alpha of the test is 1 minus it"
    )
    margin: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="difference that must be exceeded for `helps`, and downwards for `hurts`, in "
        "units of the metric",
    )
    classification_delta: float = Field(
        0.02,
        gt=0,
        lt=1,
        description="differences in the classification metric up to this, either way, are not "
        "worth having: `equivalent`",
    )
    segmentation_delta: float = Field(
        0.01, gt=0, lt=1, description="the same for the segmentation metric"
    )
    resamples: int = Field(
        10_000,
        ge=100,
        le=10_000_000,
        description="resamples of the randomisation test, which decides nothing",
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
    generator_seeds: int = Field(
        1, ge=1, le=100, description="trainings of the generator; each seed in turn has the next"
    )
    test: Path | None = Field(
        None,
        description="manifest of the test images, whose tone, size, hair and marks are measured "
        "for groups; null: no groups but diagnoses",
    )
    external: Path | None = Field(
        None,
        description="folder of predictions.csv and scores.csv of external test sets; null: none",
    )
    workers: int | None = Field(
        None, ge=1, le=1024, description="processes that measure test images; null: one per core"
    )
    out: Path = Field(description="verdict.json to write")
    tables: Path = Field(
        description="folder to write: arms.csv, comparisons.csv, tests.csv, groups.csv, "
        "external.csv"
    )

    @model_validator(mode="after")
    def _generators_share_the_seeds_evenly(self) -> "Config":
        if self.generator_seeds > 1 and (
            self.seeds is None or len(self.seeds) % self.generator_seeds
        ):
            raise ValueError(
                f"generator_seeds: found {self.generator_seeds} with seeds {self.seeds}, expected "
                "`seeds` in the order of the run, a multiple of it in number"
            )
        return self
