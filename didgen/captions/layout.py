"""The words of a caption that a mask alone decides: size, position, shape and symmetry."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from didgen.captions.attributes import (
    DERMOSCOPIC,
    LISTS,
    Attributes,
    position_word,
    size_word,
)
from didgen.captions.outline import Outline, measure_outline, shape_word, symmetry_word


@dataclass(frozen=True)
class Layout:
    """A mask's share of the field, its centroid in shares of height and width, its outline."""

    share: float
    row: float
    column: float
    outline: Outline

    @classmethod
    def of(cls, mask: np.ndarray) -> "Layout":
        """Measure a mask, bool (H, W), not empty."""
        rows, columns = np.nonzero(mask)
        return cls(
            share=float(mask.mean()),
            row=float((rows.mean() + 0.5) / mask.shape[0]),
            column=float((columns.mean() + 0.5) / mask.shape[1]),
            outline=measure_outline(mask),
        )

    def words(self) -> dict[str, str]:
        """Size, position, shape and symmetry."""
        return {
            "size": size_word(self.share),
            "position": position_word(self.row, self.column),
            "shape": shape_word(self.outline),
            "symmetry": symmetry_word(self.outline),
        }


def attributes_of(row: Mapping[str, str]) -> Attributes:
    """The attributes in a row of captions.csv: lists joined by "; ", "" for what is not known.

    Columns of dermoscopic features may be missing altogether: then nothing is known of these.
    Raises: ValueError when the row lacks another attribute or has a word outside the vocabulary.
    """
    absent = [n for n in Attributes.model_fields if n not in row and n not in DERMOSCOPIC]
    if absent:
        raise ValueError(
            f"captions.csv lacks the columns {', '.join(absent)}, from which sentences are "
            "written anew; run the caption stage again"
        )
    values: dict[str, object] = {}
    for name in Attributes.model_fields:
        text = row.get(name, "")
        if name in LISTS:
            values[name] = tuple(text.split("; ")) if text else ()
        elif text:
            values[name] = text
    return Attributes(**values)


def with_layout(attributes: Attributes, mask: np.ndarray) -> Attributes:
    """The attributes with the size, position, shape and symmetry of a mask, bool (H, W).

    What an image alone shows (colors, border, tone, hair, artifacts) stays.
    """
    return attributes.model_copy(update=Layout.of(mask).words())
