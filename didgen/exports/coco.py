"""COCO instances: one JSON a split, each lesion one annotation of polygons along its pixels."""

from pathlib import Path
from typing import Any

import numpy as np

from didgen.data.images import read_mask
from didgen.exports.outlines import area, rings, run_lengths
from didgen.exports.sets import Sets, place_images
from didgen.runtime.files import write_json

ABOUT = """\
`annotations/<split>.json` names the images in `images/<split>/`. An image has one annotation, its
lesion, of category 1. Its `segmentation` is a list of polygons, one for each part. Polygons cannot
have holes: a lesion with holes is written as uncompressed run lengths instead, with `iscrowd` 0;
pycocotools reads both to the same pixels as the mask.

```python
from pycocotools.coco import COCO

coco = COCO("annotations/train.json")
mask = coco.annToMask(coco.anns[1])
```

In FiftyOne:

```python
import fiftyone as fo

dataset = fo.Dataset.from_dir(
    dataset_type=fo.types.COCODetectionDataset,
    data_path="images/train",
    labels_path="annotations/train.json",
    label_types="segmentations",
)
```
"""


def write(sets: Sets, out: Path) -> None:
    """Write `images/<split>/` and `annotations/<split>.json`."""
    names = sorted(set(sets.images["licence"]) - {""})
    licenses = [{"id": k, "name": name, "url": ""} for k, name in enumerate(names, start=1)]
    numbers = {entry["name"]: entry["id"] for entry in licenses}
    for split, rows in sets.images.groupby("split"):
        files = [f"{name}.png" for name in rows["id"]]
        place_images(rows, files, out / "images" / str(split))
        images, annotations = [], []
        for number, row in enumerate(rows.to_dict("records"), start=1):
            image = {
                "id": number,
                "file_name": f"{row['id']}.png",
                "width": row["width"],
                "height": row["height"],
            }
            if row["licence"]:
                image["license"] = numbers[row["licence"]]
            images.append(image)
            mask = read_mask(row["mask"])
            annotations.append({"id": number, "image_id": number, **annotation(mask)})
        write_json(
            out / "annotations" / f"{split}.json",
            {
                "info": {"description": "Skin lesions, exported by DiDGen"},
                "licenses": licenses,
                "categories": [{"id": 1, "name": "lesion", "supercategory": ""}],
                "images": images,
                "annotations": annotations,
            },
        )


def annotation(mask: np.ndarray) -> dict[str, Any]:
    """What COCO says of a mask, bool (H, W) with at least one pixel. Area and box are in px."""
    found = rings(mask)
    segmentation: Any = [ring.ravel().tolist() for ring in found]
    if any(area(ring) < 0 for ring in found):
        segmentation = {"size": list(mask.shape), "counts": run_lengths(mask)}
    y, x = np.nonzero(mask)
    left, top = int(x.min()), int(y.min())
    return {
        "category_id": 1,
        "segmentation": segmentation,
        "area": int(mask.sum()),
        "bbox": [left, top, int(x.max()) + 1 - left, int(y.max()) + 1 - top],
        "iscrowd": 0,
    }
