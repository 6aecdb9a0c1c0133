"""Settings of `external_test`."""

from pathlib import Path

from pydantic import Field

from didgen.settings.base import Seed, SettingsSection


class Config(SettingsSection):
    """Paths of the stage, which has no settings of its own."""

    external: Path = Field(
        description="folder that external_data wrote: summary.json, <name>/test.csv"
    )
    classify: Path | None = Field(
        None, description="folder of <arm>/seed<s>/classifier.safetensors; null: no classifiers"
    )
    segment: Path | None = Field(
        None, description="folder of <arm>/seed<s>/segmenter.safetensors; null: no segmenters"
    )
    classify_arms: tuple[str, ...] = Field((), description="arms of classification to test")
    segment_arms: tuple[str, ...] = Field((), description="arms of segmentation to test")
    seeds: tuple[Seed, ...] = Field(min_length=1, description="seeds to test")
    memory_gb: float = Field(
        ge=0, le=100_000, description="GB of decoded images of a set kept in memory"
    )
    out: Path = Field(description="folder to write: predictions.csv, scores.csv")
