"""The words of a caption that a mask alone decides: size, position, shape and symmetry."""

from collections.abc import Mapping

import numpy as np

from didgen.captions.attributes import (
    DERMOSCOPIC,
    LISTS,
    Attributes,
    position_word,
    size_word,
)
from didgen.captions.outline import measure_outline, shape_word, symmetry_word


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

    The same measures and thresholds as in captions of real images. What an image alone shows
    (colors, border, tone, hair, artifacts) stays.
    """
    rows, columns = np.nonzero(mask)
    row, column = (rows.mean() + 0.5) / mask.shape[0], (columns.mean() + 0.5) / mask.shape[1]
    outline = measure_outline(mask)
    changes = {
        "size": size_word(float(mask.mean())),
        "position": position_word(row, column),
        "shape": shape_word(outline),
        "symmetry": symmetry_word(outline),
    }
    return attributes.model_copy(update=changes)
