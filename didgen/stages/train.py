"""Train a method of synthesis on the training images and their captions."""

import logging
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from didgen.captions.measure import segment_image
from didgen.data.images import read_image
from didgen.data.manifest import read_manifest, resolve
from didgen.methods.protocol import load_method
from didgen.runtime.files import write_png
from didgen.runtime.outputs import check_output, paths_read
from didgen.runtime.progress import track
from didgen.settings.base import Code
from didgen.settings.finetune import TrainingPaths
from didgen.settings.train import Config
from didgen.stages.caption import read_captions

LOGGER = logging.getLogger(__name__)


def run(config: Config) -> None:
    """Write the folder of a trained method. Raises: as the method's `train`."""
    check_output(config.out, "train", paths_read(config))
    train_method(config.method, config, config.finetune.classes, segment=False)


def train_method(
    name: str, config: TrainingPaths, classes: Sequence[Code] | None, segment: bool
) -> None:
    """Train a method on the images of the given classes (None: all) and those without a label.

    segment: images without a mask get one segmented by color, where something plausible is seen.
    """
    data = training_data(config, classes)
    if segment:
        folder = config.state / "segmented"
        data = data.assign(mask=_segmented_masks(data["id"], data["image"], data["mask"], folder))
    load_method(name).train(data, config)


def training_data(config: TrainingPaths, classes: Sequence[Code] | None) -> pd.DataFrame:
    """The manifest's training images with their captions, and full paths of image and mask."""
    frame = read_manifest(config.train)
    frame = frame.assign(
        caption=read_captions(config.captions, frame["id"]).to_numpy(),
        image=resolve(config.train, frame["image"]),
        mask=resolve(config.train, frame["mask"]),
    )
    if classes is None:
        return frame
    kept = frame["label"].isin([*classes, ""])
    LOGGER.info("%d of %d images left out: other classes", int((~kept).sum()), len(frame))
    return frame[kept]


def _segmented_masks(
    names: Sequence[str], images: Sequence[Path], masks: Sequence[Path | None], folder: Path
) -> list[Path | None]:
    """The masks, and for images without one a mask segmented by color, written to `folder`.

    An image in which nothing plausible is found keeps having none.
    """
    given = list(zip(names, images, masks, strict=True))
    completed = [
        mask if mask is not None else _segment(image, folder / f"{name}.png")
        for name, image, mask in track(given, label="segment images without a mask")
    ]
    added = sum(mask is None for mask in masks) - sum(mask is None for mask in completed)
    LOGGER.info("%d images without a mask were segmented", added)
    return completed


def _segment(image: Path, path: Path) -> Path | None:
    mask = segment_image(read_image(image))
    if mask is None:
        return None
    write_png(path, mask)
    return path
