"""Images of a clinic, 24 if not said otherwise, their table, and ways to spoil both."""

import io

import numpy as np
import pandas as pd
from PIL import Image

from didgen.data.manifest import SPLITS, read_manifest
from didgen.stages.data import Config, run

RNG = np.random.default_rng(0)
COUNT = 24


def photograph(size=(48, 40)):
    return Image.fromarray(RNG.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8))


def outline(size=(48, 40)):
    mask = np.zeros((size[1], size[0]), np.uint8)
    mask[10:30, 10:36] = 255
    return Image.fromarray(mask)


def write_clinic(folder, count=COUNT, **columns):
    """Images with masks and labels; their table, to be changed."""
    for k in range(count):
        photograph().save(folder / f"{k}.png")
        outline().save(folder / f"{k}_mask.png")
    frame = pd.DataFrame({"id": [f"i{k:02d}" for k in range(count)]})
    frame["image"] = [f"{k}.png" for k in range(count)]
    frame["mask"] = [f"{k}_mask.png" for k in range(count)]
    frame["label"] = ["MEL", "NV"] * (count // 2)
    return frame.assign(**{"patient_id": "", "split": "", **columns})


def prepare(folder, frame, **changes):
    frame.to_csv(folder / "own.csv", index=False)
    values = {"source": "table", "table": str(folder / "own.csv"), "classes": ("MEL", "NV"),
              "size": 32, "near_duplicates": False, "out": folder / "out"}  # fmt: skip
    run(Config(**values | changes))
    frames = [read_manifest(folder / f"out/{split}.csv") for split in SPLITS]
    return pd.concat(frames).set_index("id")


def cell(column, rows, value):
    def change(folder, frame):
        frame.loc[rows, column] = value

    return change


def file(name, content):
    """Replace a file by bytes, or by what a picture is saved as."""

    def change(folder, frame):
        if callable(content):
            content(folder / name)
        else:
            (folder / name).write_bytes(content)

    return change


def named(row, name, content):
    """The image of a row under another name."""

    def change(folder, frame):
        frame.loc[row, "image"] = name
        file(name, content)(folder, frame)

    return change


def half(path):
    stream = io.BytesIO()
    photograph((200, 150)).save(stream, "JPEG")
    path.write_bytes(stream.getvalue()[:3000])


def turned(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    photograph().save(path, exif=exif)


def dim(path):
    values = RNG.integers(0, 4096, (40, 48)).astype(np.uint16)
    Image.fromarray(values).save(path)


def pages(path):
    images = [photograph(), photograph()]
    images[0].save(path, save_all=True, append_images=images[1:])


def floats(path):
    Image.fromarray(RNG.random((40, 48)).astype(np.float32), "F").save(path)


def both(*changes):
    def change(folder, frame):
        for each in changes:
            each(folder, frame)

    return change


DICOM = bytes(128) + b"DICM" + bytes(40)
