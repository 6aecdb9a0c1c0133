"""The base of every stage's settings: immutable, checked, unknown keys refused."""

import os
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from didgen.settings.addresses import may_hold_secret, meant_as_address


def _words_as_text(value: Any) -> Any:
    """Keys as the text that a table holds: YAML reads 0 as a number, and yes as true."""
    if not isinstance(value, dict):
        return value
    if any(isinstance(word, bool) for word in value):
        raise ValueError(
            "found true or false as a word; YAML reads yes, no, on and off so: put quotes around "
            'them, as in "yes": MEL'
        )
    return {str(word) if isinstance(word, int) else word: meant for word, meant in value.items()}


# The diagnoses of ISIC 2018 Task 3; `didgen.data.classes` has their names and words.
Code = Literal["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
CODES: tuple[Code, ...] = get_args(Code)

# Words of the user's own, and what they mean; null: nothing.
Words = Annotated[dict[str, str | None], BeforeValidator(_words_as_text)]

Precision = Literal["auto", "float32", "bfloat16"]

# No library that draws takes larger ones.
LARGEST_SEED = 2**31 - 1
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]


def _as_path(value: Any) -> Any:
    """A path or name with the user's home folder in place of `~`.

    Raises: `ValueError` for what no file system takes, or an address that may hold a secret.
    """
    if not isinstance(value, str | Path):
        return value
    text = str(value)
    if not text.strip():
        raise ValueError(f"found {text!r}, expected a path or a name")
    if meant_as_address(text) and may_hold_secret(text):
        # It travels into commands, logs and the report, where no secret may stand.
        raise ValueError(
            "found an address with a user or a query, expected one without, as https://host/path; "
            "keep names and passwords in ~/.netrc, which downloads read"
        )
    # Addresses have no parts that are names of files.
    longest = "" if "://" in text else max(text.split("/"), key=len)
    if len(longest.encode(errors="replace")) > 255:
        raise ValueError(
            f"found a name of {len(longest)} characters in a path, expected 255 bytes at most, as "
            "file systems allow"
        )
    home = os.path.expanduser(text)
    if home.startswith("~"):
        raise ValueError(
            f"found {text!r}, but there is no such user's home folder; write ./{text} for a file "
            "of that name, or the folder in full"
        )
    return home


# A path, or a name that stands in its place, as of a model on a hub.
Place = Annotated[str, BeforeValidator(_as_path)]


class SettingsSection(BaseModel):
    """A section of the run configuration; a misspelt key or a wrong type is an error."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        allow_inf_nan=False,
        str_max_length=4096,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _fit_for_files(cls, value: Any, info: ValidationInfo) -> Any:
        """Put the home folder in place of `~` in paths, and refuse texts that no file can hold."""
        many = isinstance(value, list | tuple)
        for text in value if many else (value,):
            if isinstance(text, str | Path) and "\0" in str(text):
                raise ValueError(f"found {str(text)[:200]!r}, expected no NUL character")
        if Path in _types(cls.model_fields[str(info.field_name)].annotation):
            return [_as_path(each) for each in value] if many else _as_path(value)
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false for numbers: Python would take `steps: yes` for 1."""
        allowed = _types(cls.model_fields[str(info.field_name)].annotation)
        if allowed & {int, float} and bool not in allowed:
            number = "a number" if float in allowed else "a whole number"
            for item in value if isinstance(value, list | tuple) else (value,):
                if isinstance(item, bool):
                    raise ValueError(
                        f"found {str(item).lower()}, expected {number} (YAML reads yes, no, on and "
                        "off as true and false)"
                    )
        return value


class Seeded(SettingsSection):
    """A section with a seed of its own."""

    seed: Seed = Field(0, description="seed of everything that is drawn")


Tracker = Literal["tensorboard", "wandb", "mlflow", "trackio"]


class Tracked(SettingsSection):
    """A section with a training of its own."""

    report_to: Literal["none"] | Tracker = Field(
        "none",
        description="tracker that gets losses and evaluations too; it needs the package of its "
        "name. tensorboard and wandb write beside the training's files, mlflow and trackio where "
        "their own settings say",
    )


class Preset(SettingsSection):
    """A method whose sizes and schedule come in two editions."""

    paper: ClassVar[Mapping[str, Any]]

    preset: Literal["tiny", "paper"] = Field(
        "tiny",
        description="`tiny`: the defaults here, for two cores; `paper`: in place of the defaults, "
        "what the method's own source has",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """The preset's values for the keys that are not given."""
        if isinstance(values, dict) and values.get("preset") == "paper":
            return {**cls.paper, **values}
        return values


class MaskReader(SettingsSection):
    """A method that makes an image for a mask."""

    conditions: Literal["generated", "training"] = Field(
        "generated",
        description="masks to make images for: `generated`: those of the run's own pairs, with "
        "their captions, as in the paper; `training`: masks of training images",
    )


class Conditioned(MaskReader):
    """A method that makes no mask of its own: the one it follows is the pair's."""

    label: Literal["condition", "read"] = Field(
        "condition",
        description="mask of a pair: `condition`: the one that was asked for, as this method's "
        "authors do; `read`: what Eq. 7 reads in the image, with the settings of `pairs`",
    )


def _types(annotation: Any) -> set[type]:
    """The plain types in an annotation: those of `tuple[int, ...] | None` are int and NoneType."""
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return {annotation}
    return set().union(*map(_types, typing.get_args(annotation)))
