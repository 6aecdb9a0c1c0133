"""Submissions to the ISIC 2018 challenge, Tasks 1 and 3, as its scorer reads them.

The scorer: https://github.com/ImageMarkup/isic-challenge-scoring.
"""

import io
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from didgen.data.classes import CLASSES
from didgen.runtime.files import atomic_path, write_csv

# The scorer calls a tie undecided, and reads numbers to about 1e-15 of their value.
LEAST_LEAD = 1e-12
# Of a file with fewer digits, how far the predicted class may seem to be from the top.
ROUNDING = 1e-5
TASK1 = """\
`submission.zip` has `<id>_segmentation.png` for each test image with a mask: 0 or 255, at the size
of the photograph. The official scorer needs Python 3.13 or newer, so an environment of its own, and
the challenge's masks of the same images in a folder of their own:

```sh
unzip submission.zip -d submission
uvx --python 3.13 isic-challenge-scoring segmentation TRUTH_DIR submission
```
"""
TASK3 = """\
`submission.csv` has the probabilities of the seven diagnoses for each test image of the run; a
diagnosis that the run has no images of is 0. The official scorer needs Python 3.13 or newer, so an
environment of its own, and the challenge's table with the rows of the same images, no more and no
fewer:

```sh
uvx --python 3.13 isic-challenge-scoring classification TRUTH.csv submission.csv
```

It counts a tie as wrong: where the largest probability stands twice, those of other diagnoses than
the predicted one are lowered by 1e-12 of it.
"""


def probabilities(table: pd.DataFrame, where: Path) -> pd.DataFrame:
    """A table of predictions, all cells text, as numbers: index `image`, a column for each class.

    In each row the predicted class leads. Raises: ValueError for unknown classes, numbers outside
    0 to 1, or a prediction that is not the likeliest class.
    """
    given = [name.removeprefix("p_") for name in table if name.startswith("p_")]
    strange = sorted({*given, *table["prediction"]} - set(CLASSES))
    absent = sorted(set(table["prediction"]) - set(given))
    if strange or absent:
        raise ValueError(
            f"{where}: found classes {sorted(strange or absent)}, expected some of "
            f"{', '.join(CLASSES)}, each with a column p_; ISIC 2018 has no others"
        )
    numbers = table[[f"p_{code}" for code in given]].apply(pd.to_numeric, errors="coerce")
    numbers.columns = pd.Index(given)
    unfit = ~numbers.apply(lambda own: own.between(0, 1)).all(axis=1)
    if unfit.any():
        raise ValueError(
            f"{where}: {int(unfit.sum())} rows, such as {table['id'][unfit].iloc[0]!r}, whose "
            "probabilities are not all numbers from 0 to 1; train the arm again"
        )
    full = numbers.reindex(columns=list(CLASSES), fill_value=0.0).to_numpy(float)
    chosen = (np.arange(len(full)), pd.Index(CLASSES).get_indexer(table["prediction"]))
    top = full.max(axis=1)
    if (full[chosen] < top - ROUNDING).any():
        raise ValueError(
            f"{where}: found predictions that are not the likeliest class, expected no such row; "
            "train the arm again"
        )
    decided = np.minimum(full, (top * (1 - LEAST_LEAD))[:, None])
    decided[chosen] = top
    return pd.DataFrame(decided, index=pd.Index(table["id"], name="image"), columns=list(CLASSES))


def write_probabilities(numbers: pd.DataFrame, path: Path) -> None:
    """Write a Task 3 submission: every digit, and a point in every number, as the scorer asks."""
    texts = numbers.map(lambda number: np.format_float_positional(number, trim="0"))
    write_csv(path, texts.reset_index())


def check_ids(ids: Sequence[str]) -> None:
    """Raises: ValueError for ids by which the scorer finds no image of Task 1."""
    strange = [name for name in ids if not re.fullmatch(r"ISIC_\d{7}", name)]
    if strange:
        raise ValueError(
            f"found {len(strange)} of {len(ids)} test images with ids such as {strange[0]!r}, "
            "expected ISIC_ and seven digits; only images of the ISIC archive can be scored"
        )


def write_masks(
    ids: Sequence[str], masks: np.ndarray, sizes: Sequence[tuple[int, int]], path: Path
) -> None:
    """Write a Task 1 submission: masks, bool (N, H, W), each scaled to its (width, height), px.

    The same masks give the same bytes.
    """
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, mask, size in zip(ids, masks, sizes, strict=True):
            image = Image.fromarray(mask.astype(np.uint8) * 255)
            stream = io.BytesIO()
            image.resize(size, Image.Resampling.NEAREST).save(stream, format="PNG")
            # A `ZipInfo` has a fixed date.
            archive.writestr(zipfile.ZipInfo(f"{name}_segmentation.png"), stream.getvalue())
