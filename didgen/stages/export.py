"""Write a run's images, or a network's predictions, in the format of another tool."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from didgen.downstream.datasets import build_unlabelled, usable_rows
from didgen.downstream.segmenters import load_segmenter
from didgen.downstream.training import predict
from didgen.exports import coco, imagefolder, isic, nnunet, yolo
from didgen.exports.sets import REAL, Sets, attribution, read_sets, write_tables
from didgen.runtime.files import read_csv, read_object, write_text
from didgen.runtime.outputs import check_output, output_folder, paths_read
from didgen.runtime.precision import default_device
from didgen.settings.export import SUBMISSIONS, Config

LOGGER = logging.getLogger(__name__)
WRITERS: dict[str, tuple[Callable[[Sets, Path], None], str]] = {
    "imagefolder": (imagefolder.write, imagefolder.ABOUT),
    "nnunet": (nnunet.write, nnunet.ABOUT),
    "coco": (coco.write, coco.ABOUT),
    "yolo": (yolo.write, yolo.ABOUT),
}


def run(config: Config) -> None:
    """Write the export with a README that says how it is loaded.

    Raises: ValueError for a run that lacks what the format needs, and for damaged files.
    """
    read = paths_read(config)
    check_output(config.out, "export", read)
    if config.format in SUBMISSIONS:
        _submit(config, read)
    else:
        _export(config, read)


def _export(config: Config, read: list[Path]) -> None:
    write, about = WRITERS[config.format]
    sets = read_sets(config.run_dir, config.set, config.generator, config.real)
    if config.format != "imagefolder":
        n_images = len(sets.images)
        sets = sets.with_masks()
        LOGGER.info("%d images without a mask are left out", n_images - len(sets.images))
    with output_folder(config.out, "export", read) as out:
        write(sets, out)
        write_tables(sets, out)
        if config.real:
            write_text(out / "ATTRIBUTION.md", attribution(sets.images))
        write_text(out / "README.md", _readme(config, sets, about))
    LOGGER.info("%s: %d images", config.out, len(sets.images))


def _submit(config: Config, read: list[Path]) -> None:
    network = f"{config.arm}/seed{config.seed}"
    title = f"# Submission to ISIC 2018: {network}\n\n"
    if config.format == "isic_task3":
        path = config.run_dir / "classify" / network / "predictions.csv"
        table = isic.probabilities(read_csv(path, "classify", ("id", "prediction")), path)
        isic.check_ids(table.index.tolist())
        with output_folder(config.out, "export", read) as out:
            isic.write_probabilities(table, out / "submission.csv")
            write_text(out / "README.md", title + isic.TASK3)
        LOGGER.info("%s: %d images", config.out, len(table))
        return
    rows = _scorable(config.run_dir / "data")
    masks = _outlined(config.run_dir / "segment" / network, rows)
    sizes = list(zip(rows["original_width"], rows["original_height"], strict=True))
    with output_folder(config.out, "export", read) as out:
        isic.write_masks(rows["id"].tolist(), masks, sizes, out / "submission.zip")
        write_text(out / "README.md", title + isic.TASK1)
    LOGGER.info("%s: %d images", config.out, len(rows))


def _scorable(data: Path) -> pd.DataFrame:
    """The test images with a mask, whose predictions can be brought to the photographs' size.

    Raises: ValueError where they cannot, or their ids are none of the archive's.
    """
    fit = _read(data / "config.json", "data").get("fit")
    if fit != "squash":
        raise ValueError(
            f"{data}: found photographs made square by fit: {fit}, expected squash, which alone is "
            "taken back to the whole photograph: of a cropped one the edges are not predicted, "
            "and padding is not taken back here. Run with data: {fit: squash}"
        )
    rows, _ = usable_rows(data / "test.csv", "mask")
    isic.check_ids(rows["id"].tolist())
    for column in ("original_width", "original_height"):
        sides = pd.to_numeric(rows.get(column, pd.Series("", rows.index)), errors="coerce")
        if not (sides >= 1).all():
            raise ValueError(
                f"{data / 'test.csv'}: found no {column} of each image, expected the photograph's "
                "size; run the data stage again"
            )
        rows[column] = sides.astype(int)
    return rows


def _outlined(folder: Path, rows: pd.DataFrame) -> np.ndarray:
    """What a segmenter takes for lesion in images, bool (N, H, W), at the size at which it sees."""
    model, card = load_segmenter(folder / "segmenter.safetensors")
    precision = _read(folder / "metrics.json", "segment")["training"]["precision"]
    data = build_unlabelled(rows, card.image_size)
    return predict(model, data, default_device(), precision)[:, 0] > 0


def _read(path: Path, stage: str) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file; run the {stage} stage first, or correct run_dir")
    return read_object(path)


def _readme(config: Config, sets: Sets, about: str) -> str:
    counts = sets.images.groupby(["origin", "split"]).size()
    rows = [f"| {origin} | {split} | {n} |" for (origin, split), n in counts.items()]
    real = (
        "`ATTRIBUTION.md` has the licences and citations of the real images, which say whether "
        "this folder may be passed on."
        if (sets.images["origin"] == REAL).any()
        else "The real images are not here; `real_ids.csv` lists them with their splits."
    )
    return f"""\
# Export of the set `{config.set}` for {config.format}

Written by `didgen export`. `images.csv` has a row for each image: where it comes from, prompt, seed
and digest. Synthetic images are for training alone. {real}

| images | split | number |
|---|---|---|
{chr(10).join(rows)}

{about}"""
