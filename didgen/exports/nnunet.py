"""A data set of nnU-Net v2: https://github.com/MIC-DKFZ/nnUNet, documentation/dataset_format.md."""

from pathlib import Path

import numpy as np
import pandas as pd

from didgen.data.images import read_mask
from didgen.exports.sets import Sets, place_images
from didgen.runtime.files import write_json, write_png

NUMBER = 500
DATASET = f"Dataset{NUMBER}_DiDGen"
ABOUT = f"""\
Rename `{DATASET}` in both folders where you have a data set of this number. Then:

```sh
export nnUNet_raw=$PWD/nnUNet_raw nnUNet_preprocessed=$PWD/nnUNet_preprocessed
export nnUNet_results=$PWD/nnUNet_results
nnUNetv2_plan_and_preprocess -d {NUMBER} --verify_dataset_integrity -c 2d
nnUNetv2_train {NUMBER} 2d 0
```

`splits_final.json` has one fold, so train fold 0 alone: it keeps the images of a lesion together,
and synthetic ones in train. It names the real images even where they are not here: put each in
`imagesTr` as `<id>_0000.png` (8-bit RGB) and its mask in `labelsTr` as `<id>.png` (0 skin, 1
lesion), and add their number to `numTraining` in `dataset.json`; until then nnU-Net stops at the
first absent one. Real test images are in `imagesTs`, their masks in `labelsTs`.

In FiftyOne:

```python
from pathlib import Path
import fiftyone as fo

raw = Path("nnUNet_raw/{DATASET}")
dataset = fo.Dataset()
for label in sorted((raw / "labelsTr").glob("*.png")):
    sample = fo.Sample(filepath=str((raw / "imagesTr" / f"{{label.stem}}_0000.png").absolute()))
    sample["lesion"] = fo.Segmentation(mask_path=str(label.absolute()))
    dataset.add_sample(sample)
dataset.default_mask_targets = {{1: "lesion"}}
```
"""


def write(sets: Sets, out: Path) -> None:
    """Write `nnUNet_raw/`, images and labels of 0 and 1, and `nnUNet_preprocessed/`, the split."""
    raw = out / "nnUNet_raw" / DATASET
    test = sets.images["split"] == "test"
    _write_part(sets.images[~test], "Tr", raw)
    _write_part(sets.images[test], "Ts", raw)
    write_json(
        raw / "dataset.json",
        {
            "name": DATASET,
            "channel_names": {"0": "R", "1": "G", "2": "B"},
            "labels": {"background": 0, "lesion": 1},
            "numTraining": int((~test).sum()),
            "file_ending": ".png",
        },
    )
    cases = pd.concat([sets.images, sets.named])
    fold = {split: cases.loc[cases["split"] == split, "id"].tolist() for split in ("train", "val")}
    write_json(out / "nnUNet_preprocessed" / DATASET / "splits_final.json", [fold])


def _write_part(images: pd.DataFrame, part: str, raw: Path) -> None:
    place_images(images, [f"images{part}/{name}_0000.png" for name in images["id"]], raw)
    for name, mask in zip(images["id"], images["mask"], strict=True):
        write_png(raw / f"labels{part}" / f"{name}.png", read_mask(mask).astype(np.uint8))
