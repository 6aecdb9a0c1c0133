"""A run's folder with a synthetic set, a method's set and real images, all 24 px by 16."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from didgen.data.manifest import SYNTHETIC_COLUMNS, write_manifest
from didgen.runtime.files import sha256_file, write_csv, write_png

SHAPE = (16, 24)


def one_blob() -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[3:9, 5:20] = True
    mask[3, 5] = mask[8, 10:14] = False
    return mask


def two_parts() -> np.ndarray:
    """Two parts that touch at a corner, and a single pixel at the border."""
    mask = np.zeros(SHAPE, bool)
    mask[2:6, 2:8] = mask[6:9, 8:11] = mask[15, 23] = True
    return mask


def with_hole() -> np.ndarray:
    mask = one_blob()
    mask[5:7, 9:12] = False
    return mask


MASKS = {"one_blob": one_blob, "two_parts": two_parts, "with_hole": with_hole}


def put(folder: Path, name: str, split: str, source: str, mask: str = "", **more) -> dict:
    """Write an image, and its mask by the name of its shape; the row of both."""
    pixels = np.random.default_rng(list(name.encode())).integers(0, 255, (*SHAPE, 3), np.uint8)
    write_png(folder / f"images/{name}.png", pixels)
    row = {"id": name, "image": f"images/{name}.png", "mask": "", "label": "MEL", "split": split}
    row |= {"lesion_id": f"L{name}", "patient_id": "", "source": source, "width": SHAPE[1]}
    row |= {"height": SHAPE[0], "sha256": sha256_file(folder / row["image"])}
    if mask:
        row["mask"] = f"masks/{name}.png"
        write_png(folder / row["mask"], MASKS[mask]())
    return row | more


def made(folder: Path, name: str, method: str, mask: str = "") -> dict:
    """`put` of a synthetic image; a mask brings a condition of another shape."""
    row = put(folder, name, "train", "synthetic", mask)
    row |= dict.fromkeys(SYNTHETIC_COLUMNS, "") | {
        "seed": 7,
        "method": method,
        "caption": "A nevus.",
    }
    row |= {"set": "pairs" if mask else "images", "condition": ""}
    if mask:
        row["condition"] = f"conditions/{name}.png"
        write_png(folder / row["condition"], ~MASKS[mask]())
    return row


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    for folder, prefix, method in (
        ("augment", "P", "didgen"),
        ("methods/warp/augment", "W", "warp"),
    ):
        place = run / folder
        rows = [made(place, f"{prefix}_{n}", method, mask) for n, mask in enumerate(MASKS)]
        rows.append(made(place, f"{prefix}_image", method))
        frame = pd.DataFrame(rows).rename(columns={"image": "file_name"})
        write_csv(place / "metadata.csv", frame)
    real = {
        "train": [("0012", "one_blob", "ISIC 2018 Task 1"), ("0013", "", "ISIC 2018 Task 3")],
        "val": [("0014", "two_parts", "ISIC 2018 Task 1")],
        "test": [("0015", "with_hole", "a clinic")],
    }
    for split, images in real.items():
        rows = [put(run / "data", name, split, source, mask) for name, mask, source in images]
        write_manifest(pd.DataFrame(rows), run / "data" / f"{split}.csv")
    return run


@pytest.fixture
def pixels():
    """The pixels of an image, and a mask as bool."""

    def read(path: Path) -> np.ndarray:
        from PIL import Image

        return np.asarray(Image.open(path))

    return read
