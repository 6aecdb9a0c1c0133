"""An image folder of Hugging Face `datasets`, which decodes masks and conditions as images."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from didgen.exports.sets import COLUMNS, REAL, SYNTHETIC, Sets
from didgen.runtime.files import place_file, write_text

FILES = {"image": "file_name", "mask": "mask_file_name", "condition": "condition_file_name"}
ABOUT = """\
Real and synthetic images have other columns, so each is a folder of its own:

```python
from datasets import load_dataset

synthetic = load_dataset("imagefolder", data_dir="synthetic")["train"]
row = synthetic[0]  # row["image"] and, in sets with pairs, row["mask"], row["condition"]: images
real = load_dataset("imagefolder", data_dir="real")  # where real images were exported
```

A mask is 0 (skin) or 255 (lesion), and None of an image without one. In FiftyOne:

```python
import fiftyone as fo

dataset = fo.Dataset.from_dir(
    dataset_type=fo.types.ImageSegmentationDirectory,
    data_path="synthetic/train/images",
    labels_path="synthetic/train/masks",
)
dataset.default_mask_targets = {255: "lesion"}
```
"""


def write(sets: Sets, out: Path) -> None:
    """Write `{synthetic,real}/<split>/` with `metadata.jsonl`, `images/`, `masks/`, `conditions/`.

    Not metadata.csv, which `datasets` reads with pandas: an id 0012 would become the number 12.
    Raises: ValueError where of the real splits some have masks and some have none, for
    `datasets` wants the same columns in each.
    """
    images = sets.images
    columns = {origin: _columns(images[images["origin"] == origin]) for origin in (SYNTHETIC, REAL)}
    for (origin, split), rows in images.groupby(["origin", "split"]):
        folder = out / str(origin) / str(split)
        lines = [_line(row, columns[str(origin)], folder) for row in rows.to_dict("records")]
        write_text(folder / "metadata.jsonl", "".join(lines))


def _columns(images: pd.DataFrame) -> list[str]:
    files = [column for column in FILES if images[column].notna().any()]
    for column in files:
        known = images.groupby("split")[column].count()
        if (known == 0).any():
            raise ValueError(
                f"found no {column} in {', '.join(known.index[known == 0])} and some in "
                f"{', '.join(known.index[known > 0])}, expected some in each split or in none, as "
                "`datasets` does; export without the real images, or in another format"
            )
    return files + [c for c in COLUMNS if c in images and images[c].notna().any()]


def _line(row: dict[str, Any], columns: list[str], folder: Path) -> str:
    """A row as JSON; its files are placed in the folder."""
    values = {}
    for column in columns:
        if column not in FILES:
            values[column] = row[column]
            continue
        values[FILES[column]] = None
        if row[column] is not None:
            values[FILES[column]] = f"{column}s/{row['id']}.png"
            place_file(row[column], folder / f"{column}s" / f"{row['id']}.png")
    return json.dumps(values, ensure_ascii=False) + "\n"
