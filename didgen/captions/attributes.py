"""The DermPrompt vocabulary: what a caption may say, as a schema that a language model can fill.

`docs/dermprompt.md` defines each value with its threshold and its source.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from didgen.data.classes import CLASSES

Size = Literal["small", "medium", "large"]
Shape = Literal["round", "oval", "irregular"]
Symmetry = Literal["symmetric", "asymmetric"]
Border = Literal["sharp", "blurred"]
Color = Literal[
    "light brown",
    "dark brown",
    "black",
    "red",
    "pink",
    "purple",
    "blue-gray",
    "white",
    "tan",
    "yellow",
]
Position = Literal[
    "upper left",
    "top",
    "upper right",
    "left",
    "center",
    "right",
    "lower left",
    "bottom",
    "lower right",
]
SkinTone = Literal["very light", "light", "intermediate", "tan", "brown", "dark"]
Hair = Literal["none", "some", "dense"]
Artifact = Literal["ruler", "ink", "gel bubbles", "dark corners"]

MAX_COLORS = 3
SMALL_BELOW = 0.10  # share of the field
MEDIUM_BELOW = 0.25
# The grid in reading order; index = 3 * row + column.
GRID: tuple[Position, ...] = (
    "upper left",
    "top",
    "upper right",
    "left",
    "center",
    "right",
    "lower left",
    "bottom",
    "lower right",
)
# Lower bounds of the individual typology angle in degrees (Chardin 1991, Del Bino 2006).
ITA_ABOVE: tuple[tuple[SkinTone, float], ...] = (
    ("very light", 55.0),
    ("light", 41.0),
    ("intermediate", 28.0),
    ("tan", 10.0),
    ("brown", -30.0),
)


class Attributes(BaseModel):
    """What one dermoscopic image shows; None or an empty list stands for "not known".

    Immutable; unknown keys and words outside the vocabulary are refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    diagnosis: str | None = Field(None, description="diagnosis code, e.g. MEL; None if unlabelled")
    size: Size | None = Field(None, description="area as a share of the field of view")
    shape: Shape | None = Field(None, description="outline")
    symmetry: Symmetry | None = Field(None, description="symmetry of the outline about two axes")
    border: Border | None = Field(None, description="how abruptly the border ends")
    colors: Annotated[tuple[Color, ...], Field(max_length=MAX_COLORS)] = Field(
        (), description="color names, the main one first"
    )
    position: Position | None = Field(
        None, description="cell of a 3x3 grid that holds the centroid"
    )
    skin_tone: SkinTone | None = Field(None, description="category of the typology angle")
    hair: Hair = Field("none", description="how much dark hair is seen")
    artifacts: tuple[Artifact, ...] = Field((), description="marks that are not the body's own")

    @field_validator("diagnosis")
    @classmethod
    def _known_code(cls, value: str | None) -> str | None:
        if value is not None and value not in CLASSES:
            raise ValueError(f"found diagnosis {value!r}, expected one of {', '.join(CLASSES)}")
        return value

    @model_validator(mode="after")
    def _no_word_twice(self) -> Self:
        for name in ("colors", "artifacts"):
            words = getattr(self, name)
            if len(set(words)) != len(words):
                raise ValueError(f"{name} names a word twice: {', '.join(words)}")
        return self


def size_word(share: float) -> Size:
    """Size from the area's share of the field, in [0, 1]."""
    return "small" if share < SMALL_BELOW else "medium" if share < MEDIUM_BELOW else "large"


def position_word(row: float, column: float) -> Position:
    """Cell of the 3x3 grid that holds a point given as fractions of height and width."""
    cell = (min(2, int(3 * row)), min(2, int(3 * column)))
    return GRID[3 * cell[0] + cell[1]]


def skin_tone_word(ita: float) -> SkinTone:
    """Skin tone from the individual typology angle in degrees."""
    return next((word for word, above in ITA_ABOVE if ita > above), "dark")


def flip_horizontal(attributes: Attributes) -> Attributes:
    """The attributes of the mirrored image: left and right change places."""
    position = attributes.position
    if position is not None:
        row, column = divmod(GRID.index(position), 3)
        position = GRID[3 * row + 2 - column]
    return attributes.model_copy(update={"position": position})
