"""Settings of `fetch`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from didgen.settings.addresses import is_address, meant_as_address
from didgen.settings.base import Place, SettingsSection

RequestedSplits = Literal["auto", "grouped", "official"]


class Archives(SettingsSection):
    """Which archives of ISIC 2018, from where, to where: what `fetch` and `data` share."""

    mirror: Place | None = Field(
        None,
        min_length=1,
        description="address (http, https) or folder of the ISIC 2018 archives, under their "
        "official names; a folder is used in place; null: the challenge's own servers",
    )
    archives: Path = Field(
        Path("data/isic2018"),
        description="folder where downloaded archives and `archives.lock.json`, the record of "
        "their checksums, are kept; source isic2018",
    )
    offline: bool = Field(
        False, description="download nothing: say what is missing and where to put it"
    )
    splits: RequestedSplits = Field(
        "auto",
        description="`grouped`: new ones by patient, lesion and cluster of duplicates, stratified "
        "by class; `official`: those that the source states, val taken out of train where it "
        "states none or one with fewer than 20 images of a class; `auto`: official where the "
        "images state train and test, else grouped; "
        "isic2018 states its own only where `official` is asked for, which needs further archives",
    )

    @field_validator("mirror")
    @classmethod
    def _is_folder_or_plain_address(cls, mirror: str | None) -> str | None:
        if mirror is None or not meant_as_address(mirror) or is_address(mirror):
            return mirror
        raise ValueError(
            f"found {mirror!r}, expected http:// or https:// with a host, or the path of a folder"
        )


class Settings(Archives):
    """The source whose archives are wanted."""

    source: Literal["isic2018"] = Field(
        "isic2018", description="the source whose archives are fetched"
    )


class Config(Settings):
    """Settings and paths of the stage."""

    workers: int = Field(4, ge=1, le=32, description="files fetched or checked at once")
    out: Path = Field(description="JSON to write: every archive's path, size and checksum")
