"""The base of every stage's settings: immutable, checked, unknown keys refused."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section of the run configuration; a misspelt key or a wrong type is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
