"""The DermPrompt vocabulary: what a caption may say, as a schema that a language model can fill.

`docs/dermprompt.md` defines each value with its threshold and its source.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

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
# Dermoscopic features. "absent": looked for and not seen; None: not known.
Network = Literal["absent", "typical", "atypical", "negative"]
Veil = Literal["absent", "present"]
Vessel = Literal[
    "dotted", "glomerular", "arborizing", "comma", "hairpin", "crown", "linear irregular"
]
Regularity = Literal["absent", "regular", "irregular"]
Regression = Literal["absent", "white", "blue", "white and blue"]
Structure = Literal[
    "milia-like cysts",
    "comedo-like openings",
    "fissures and ridges",
    "scale",
    "ulceration",
    "lacunae",
    "leaf-like areas",
    "spoke-wheel areas",
    "ovoid nests",
    "central white patch",
    "shiny white lines",
]

MOST_FAULTS = 10
MAX_COLORS = 3
MAX_VESSELS = 2
MAX_STRUCTURES = 3
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
# Attributes that hold several words.
LISTS = ("colors", "artifacts", "vessels", "structures")
# What pixels and mask do not tell: only a language model or a person fills these.
DERMOSCOPIC = (
    "network",
    "veil",
    "vessels",
    "dots_globules",
    "streaks",
    "blotches",
    "regression",
    "structures",
)


class Attributes(BaseModel):
    """What one dermoscopic image shows; None or an empty list stands for "not known".

    `DERMOSCOPIC` names the features of dermoscopy's checklists, which measurement leaves empty.
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
    network: Network | None = Field(
        None,
        description="mesh of brown lines: typical if even and fading outwards, atypical if uneven "
        "in mesh or thickness or ending abruptly, negative if light lines surround dark patches",
    )
    veil: Veil | None = Field(
        None, description="blue-whitish veil: confluent blue area under a whitish haze"
    )
    vessels: Annotated[tuple[Vessel, ...], Field(max_length=MAX_VESSELS)] = Field(
        (), description="forms of the visible vessels, the commonest first"
    )
    dots_globules: Regularity | None = Field(
        None, description="small round dark spots: alike and evenly spread, or not"
    )
    streaks: Regularity | None = Field(
        None, description="dark lines that run outwards at the rim: all around, or here and there"
    )
    blotches: Regularity | None = Field(
        None, description="dark area without structure: one in the middle, or off-center or ragged"
    )
    regression: Regression | None = Field(
        None, description="white scar-like areas, blue-gray pepper-like ones, or both"
    )
    structures: Annotated[tuple[Structure, ...], Field(max_length=MAX_STRUCTURES)] = Field(
        (), description="other dermoscopic structures, the clearest first"
    )

    @classmethod
    def from_row(cls, row: Mapping[str, str]) -> Self:
        """The attributes in a row of captions.csv: lists joined by "; ", "" for what is not known.

        Columns of dermoscopic features may be missing altogether: then nothing is known of these.
        Raises: ValueError when the row lacks another attribute or has a word outside the
        vocabulary.
        """
        absent = [n for n in cls.model_fields if n not in row and n not in DERMOSCOPIC]
        if absent:
            raise ValueError(
                f"captions.csv lacks the columns {', '.join(absent)}, from which sentences are "
                "written anew; run the caption stage again"
            )
        values: dict[str, object] = {}
        for name in cls.model_fields:
            text = row.get(name, "")
            if name in LISTS:
                values[name] = tuple(text.split("; ")) if text else ()
            elif text:
                values[name] = text
        try:
            return cls(**values)
        except ValidationError as error:
            raise ValueError(
                f"captions.csv, image {row.get('id', '')!r}: {explain(error)}; run the caption "
                "stage again"
            ) from None

    def to_row(self) -> dict[str, str]:
        """The columns that `from_row` reads."""
        return {
            name: "; ".join(value) if isinstance(value, tuple) else (value or "")
            for name, value in self.model_dump().items()
        }

    @field_validator("diagnosis")
    @classmethod
    def _known_code(cls, value: str | None) -> str | None:
        if value is not None and value not in CLASSES:
            raise ValueError(f"found diagnosis {value!r}, expected one of {', '.join(CLASSES)}")
        return value

    @model_validator(mode="after")
    def _no_word_twice(self) -> Self:
        for name in LISTS:
            words = getattr(self, name)
            if len(set(words)) != len(words):
                raise ValueError(f"{name} names a word twice: {', '.join(words)}")
        return self


def explain(error: ValidationError) -> str:
    """Which attributes do not follow the vocabulary, and why: the first ten faults."""
    # A hostile answer may have a hundred thousand.
    faults = [
        f"{'.'.join(map(str, one['loc']))}: {one['msg']}"
        for one in error.errors(include_url=False, include_input=False, include_context=False)
    ]
    more = [f"and {len(faults) - MOST_FAULTS} more"] if len(faults) > MOST_FAULTS else []
    return "; ".join(faults[:MOST_FAULTS] + more)


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
