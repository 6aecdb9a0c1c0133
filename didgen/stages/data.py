"""Read the source, prepare its images, split them without leaks, write manifests and the audit."""

import logging
from pathlib import Path

import pandas as pd

from didgen.data.leaks import ACCEPTED
from didgen.data.manifest import (
    SPLITS,
    check_groups,
    check_identities,
    read_manifest,
    write_manifest,
)
from didgen.data.partition import SplitRule, check_before_pixels, duplicates_of, partition
from didgen.data.preparation import PreparationPlan, as_table, identify_images, prepare_images
from didgen.data.selection import choose_records, identities
from didgen.data.sources.opening import source_records
from didgen.data.summary import summary
from didgen.runtime.files import write_json, write_text
from didgen.runtime.outputs import check_outside, output_folder, paths_read
from didgen.settings.data import Config

LOGGER = logging.getLogger(__name__)


def run(config: Config) -> None:
    """Write images, masks, one manifest a split, `leaks.json`, `summary.json` and `config.json`.

    Raises: `SourceError`, `SplitError`, `LeakError` or `ManifestError` before anything is named as
    finished; what can be told without pixels, before any is read.
    """
    archives = config.archives if config.source == "isic2018" else None
    read = paths_read(config, config.folder, config.table, config.mirror, archives)
    if config.folder:
        check_outside(config.out, config.folder)
    with output_folder(config.out, "data", read) as out:
        _prepare(config, out)


def _prepare(config: Config, out: Path) -> None:
    limits = (config.max_per_class, config.max_masks, config.seed, config.tasks)
    choice = choose_records(source_records(config), config.classes, *limits)
    rule = SplitRule(
        config.splits, config.on_leak, config.val_fraction, config.test_fraction, config.seed,
        config.tasks,
    )  # fmt: skip
    kept, everyone = identities(choice.kept), identities(choice.everyone)
    basis = check_before_pixels(kept, everyone, rule, f"source {config.source}")
    LOGGER.info("preparing %d images at %d px", len(choice.kept), config.size)
    phantoms = config.source == "phantoms"
    near = config.near_duplicates and not phantoms
    plan = PreparationPlan(out, config.size, config.fit, config.hair_removal, near)
    prepared = prepare_images(choice.kept, plan, config.workers)
    # Two images that only a third one relates belong together, even where the third is left out.
    compared = choice.passed_over if config.compare_left_out and not phantoms else []
    identified = identify_images(compared, plan, config.workers)
    pairs, finder = duplicates_of([*prepared, *identified])
    everyone = identities(choice.in_order([item.row["id"] for item in identified]))
    parts = partition(as_table(prepared), everyone, pairs, basis, rule, finder)
    kept = parts.frame[parts.keep]
    for split in SPLITS:
        write_manifest(kept[kept["split"] == split], out / f"{split}.csv")
    _check_written(out)
    write_json(out / "leaks.json", parts.leaks | {"n_compared": len(prepared) + len(identified)})
    left_out = choice.left_out | {"related to a later split": int((~parts.keep).sum())}
    here = [item for item, stays in zip(prepared, parts.keep, strict=True) if stays]
    counts = summary(kept, here, left_out, config.source) | {"split_rule": parts.summary}
    write_json(out / "summary.json", counts)
    write_text(out / "config.json", config.model_dump_json(indent=2) + "\n")
    left = parts.frame[~parts.keep]
    for name in filter(None, [*left["image"], *left["mask"]]):
        (out / name).unlink()
    LOGGER.info("images by split: %s", kept["split"].value_counts().to_dict())


def _check_written(out: Path) -> None:
    """Assert on the manifests as written that nothing related stands in two splits.

    Raises: `ManifestError`. Leaks that the user accepts (`on_leak: warn`) are marked, and pass.
    """
    files = [out / f"{split}.csv" for split in SPLITS]
    frame = pd.concat([read_manifest(path, check_files=False) for path in files])
    check_identities(frame, "manifests as written")
    if "leak" in frame:
        frame = frame[frame["leak"] != ACCEPTED]
    check_groups(frame, "manifests as written")
