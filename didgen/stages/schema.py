"""Write the JSON schema and config/README.md from the settings models, or check them for drift."""

from pathlib import Path

from pydantic import Field

from didgen.data.settings import Section


class Config(Section):
    """Paths of the tool."""

    schema_file: Path = Field(
        Path("workflow/schemas/config.schema.json"), description="JSON schema to write"
    )
    readme: Path = Field(Path("config/README.md"), description="key reference to write")
    check: bool = Field(False, description="only compare; fail when a file is out of date")


def run(config: Config) -> None:
    """Write both files. Raises: `ValueError` with `check` when one differs from the models."""
    from didgen.config import json_schema_text, key_reference
    from didgen.data.files import write_text

    for path, text in ((config.schema_file, json_schema_text()), (config.readme, key_reference())):
        if not config.check:
            write_text(path, text)
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            raise ValueError(f"{path} is out of date; run: python -m didgen schema")
