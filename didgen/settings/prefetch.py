"""Settings of `prefetch`."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from didgen.settings.base import Section


class Settings(Section):
    """Which weights; what lies on this machine's disks is only looked up."""

    backbone: str = Field(
        "tiny", description="`tiny`, a diffusers folder, a .safetensors checkpoint or a hub id"
    )
    revision: str | None = Field(None, description="hub revision (commit) of the backbone")
    networks: tuple[str, ...] = Field(
        (), description="timm names of downstream networks that start from the hub's weights"
    )
    spaces: tuple[Literal["inception", "dinov2", "lpips"], ...] = Field(
        (), description="networks of `fidelity` whose published weights are wanted"
    )
    captioner: str = Field(
        "measure", description="as in `caption`; models are `model`, `mmproj` and `text_model`"
    )
    model: str | None = Field(None, description="as in `caption`")
    model_revision: str | None = Field(None, description="as in `caption`")
    mmproj: str | None = Field(None, description="as in `caption`")
    text_model: str | None = Field(None, description="as in `caption`")


class Config(Settings):
    """Settings and paths of the stage."""

    out: Path = Field(description="JSON to write: each model, where it lies and its size in bytes")
