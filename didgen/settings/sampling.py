"""How sets of images are made: what images and pairs share."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from didgen.settings.base import Precision, SettingsSection
from didgen.settings.rivals import ByMethod


class Sampling(SettingsSection):
    """How many images are made at a time, by any method; and steps, guidance and arithmetic of a
    diffusion model's sampling, and what is done about broken images."""

    batch_size: int = Field(
        8,
        ge=1,
        le=1024,
        description="images made together; another number may change an image's last bits",
    )
    steps: int = Field(50, ge=1, le=1000, description="sampling steps")
    guidance_scale: float = Field(
        7.5, ge=1, le=100, description="classifier-free guidance; 1: none"
    )
    scheduler: Literal["ddim", "dpm++"] = Field("ddim", description="sampler")
    precision: Precision = Field(
        "auto",
        description="arithmetic of the network; auto: bfloat16 on a GPU that has it built in, and "
        "on a processor on which a short trial finds it quicker",
    )
    retries: int = Field(
        2,
        ge=0,
        le=100,
        description="times an image that diverges is sampled again, with another seed",
    )


class SetPaths(ByMethod):
    """What both stages read, which part they make, and what they may use."""

    train: Path = Field(description="manifest of the training images")
    captions: Path = Field(description="captions.csv of the caption stage")
    model: Path = Field(description="folder of the trained method: the fine-tuned backbone, say")
    backbone: Path | None = Field(
        None, description="fine-tuned backbone, for a trained method that builds on it"
    )
    out: Path = Field(description="folder to write: images/, metadata.csv; of pairs also masks/")
    shard: str = Field("1/1", description="which of how many shards to make: k/n")
    workers: int = Field(
        1, ge=1, le=1024, description="on a processor: most processes to sample in, one core each"
    )
    memory_mb: int | None = Field(
        None,
        ge=1,
        le=100_000_000,
        description="memory that they may take together; null: what is free",
    )
