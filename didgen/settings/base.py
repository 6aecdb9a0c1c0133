"""The base of every stage's settings: immutable, checked, unknown keys refused."""

import typing
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator


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


class Section(BaseModel):
    """A section of the run configuration; a misspelt key or a wrong type is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

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


class Seeded(Section):
    """A section with a seed of its own."""

    seed: int = Field(0, ge=0, description="seed of everything that is drawn")


class Tracked(Section):
    """A section with a training of its own."""

    report_to: Literal["none", "tensorboard", "wandb", "mlflow", "trackio"] = Field(
        "none",
        description="tracker that gets losses and evaluations too; it needs the package of its "
        "name. tensorboard and wandb write beside the training's files, mlflow and trackio where "
        "their own settings say",
    )


def _types(annotation: Any) -> set[type]:
    """The plain types in an annotation: those of `tuple[int, ...] | None` are int and NoneType."""
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return {annotation}
    return set().union(*map(_types, typing.get_args(annotation)))
