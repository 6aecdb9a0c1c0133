"""Settings of `weights`."""

from pathlib import Path

from pydantic import Field

from didgen.settings.base import SettingsSection
from didgen.settings.caption import Settings as CaptionSettings
from didgen.settings.classify import Settings as ClassifySettings
from didgen.settings.fidelity import Settings as FidelitySettings
from didgen.settings.finetune import Settings as FinetuneSettings
from didgen.settings.rivals import Methods
from didgen.settings.segment import Settings as SegmentSettings


class Settings(SettingsSection):
    """The sections of a run that name published weights."""

    caption: CaptionSettings = Field(CaptionSettings(), description="section `caption`")
    finetune: FinetuneSettings = Field(FinetuneSettings(), description="section `finetune`")
    classify: ClassifySettings = Field(ClassifySettings(), description="section `classify`")
    segment: SegmentSettings = Field(SegmentSettings(), description="section `segment`")
    fidelity: FidelitySettings = Field(FidelitySettings(), description="section `fidelity`")
    methods: Methods = Field(Methods(), description="section `methods`")
    tokenizer_only: bool = Field(
        False,
        description="of the backbone only the tokenizer, by which captions are measured: nothing "
        "is made with it",
    )


class Config(Settings):
    """Settings and paths of the stage."""

    out: Path = Field(description="JSON to write: each model, where it lies and its size in bytes")
