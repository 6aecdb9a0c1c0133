"""YOLO segmentation: a text file an image, a row for each part of its lesion."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from scipy.ndimage import binary_fill_holes

from didgen.data.images import read_mask
from didgen.data.manifest import SPLITS
from didgen.exports.outlines import contours
from didgen.exports.sets import Sets, place_images
from didgen.runtime.files import write_csv, write_text

LOGGER = logging.getLogger(__name__)

ABOUT = """\
`data.yaml` is what a YOLO-seg training reads. `labels/<split>/<id>.txt` has a row for each part of
the lesion: class 0, then x and y of the outermost pixels' centers, as parts of width and height.
This format has no holes: they are filled. Where there were any, `filled_holes.csv` lists the images
and how many pixels more than in the mask are lesion.

Training needs validation images: export the real ones too (`--real true`), or put your own into
`images/val` and `labels/val`. In FiftyOne:

```python
import fiftyone as fo

dataset = fo.Dataset.from_dir(
    dataset_type=fo.types.YOLOv5Dataset, dataset_dir=".", split="train", label_type="polylines"
)
```
"""


def write(sets: Sets, out: Path) -> None:
    """Write `images/<split>/`, `labels/<split>/`, `data.yaml`; `filled_holes.csv` if any were."""
    filled = []
    for split, rows in sets.images.groupby("split"):
        place_images(rows, [f"images/{split}/{name}.png" for name in rows["id"]], out)
        for name, path in zip(rows["id"], rows["mask"], strict=True):
            mask = read_mask(path)
            write_text(out / f"labels/{split}/{name}.txt", label(mask))
            filled.append({"id": name, "pixels": int((binary_fill_holes(mask) & ~mask).sum())})
    holes = pd.DataFrame(filled).query("pixels > 0")
    if len(holes):
        write_csv(out / "filled_holes.csv", holes)
        LOGGER.warning("%d of %d masks have holes, which are filled", len(holes), len(filled))
    splits = [split for split in SPLITS if split != "test" or split in set(sets.images["split"])]
    described = {split: f"images/{split}" for split in splits} | {"names": {0: "lesion"}}
    write_text(out / "data.yaml", yaml.safe_dump(described, sort_keys=False))


def label(mask: np.ndarray) -> str:
    """The rows of a mask, bool (H, W).

    Readers round down to pixels, so from a pixel's center they come back to that pixel.
    """
    sides = mask.shape[::-1]
    return "".join(
        " ".join(["0", *(f"{part:.8f}" for part in ((points + 0.5) / sides).ravel())]) + "\n"
        for points in contours(mask)
    )
