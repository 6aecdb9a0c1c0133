"""Settings of `schema`."""

from pathlib import Path

from pydantic import Field

from didgen.settings.base import SettingsSection


class Config(SettingsSection):
    """Paths of the tool."""

    schema_file: Path = Field(
        Path("workflow/schemas/config.schema.json"), description="JSON schema to write"
    )
    readme: Path = Field(Path("config/README.md"), description="key reference to write")
    check: bool = Field(False, description="only compare; fail when a file is out of date")
