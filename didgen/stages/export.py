"""Write a run's images, or a network's predictions, in the format of another tool."""

import logging
from collections.abc import Callable
from pathlib import Path

from didgen.exports import coco, imagefolder, nnunet, yolo
from didgen.exports.sets import REAL, Sets, attribution, read_sets, write_tables
from didgen.runtime.files import write_text
from didgen.runtime.outputs import check_output, output_folder, paths_read
from didgen.settings.export import Config

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
    write, about = WRITERS[config.format]
    sets = read_sets(config.run_dir, config.set, config.real)
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
