"""Read the source, prepare its images, split them without leaks, write manifests and the audit."""

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from didgen.data.download import archives_folder, listed_folder
from didgen.data.external import choose_external, related_to
from didgen.data.leaks import ACCEPTED
from didgen.data.manifest import (
    SPLITS,
    check_groups,
    check_identities,
    read_manifest,
    write_manifest,
)
from didgen.data.partition import SplitRule, check_before_pixels, duplicates_of, partition
from didgen.data.preparation import (
    PreparationPlan,
    Prepared,
    as_table,
    identify_images,
    prepare_images,
)
from didgen.data.selection import Choice, choose_records, identities
from didgen.data.sources.isic2018 import isic2018_records
from didgen.data.sources.layouts import published_records
from didgen.data.sources.own import folder_records, own_records
from didgen.data.sources.phantom import phantom_records
from didgen.data.sources.published import LAYOUTS
from didgen.data.sources.records import Record, SourceError
from didgen.data.summary import summary
from didgen.runtime.files import write_json, write_text
from didgen.runtime.outputs import output_folder, paths_read
from didgen.settings.data import Config, ImageFolder

EXTERNAL = "external"
LOGGER = logging.getLogger(__name__)


def run(config: Config) -> None:
    """Write images, masks, one manifest a split, `leaks.json`, `summary.json` and `config.json`.

    Raises: `SourceError`, `SplitError`, `LeakError` or `ManifestError` before anything is named as
    finished; what can be told without pixels, before any is read.
    """
    archives = config.archives if config.source == "isic2018" else None
    folders = [own.folder for own in (config, *config.external) if own.folder]
    tables = [own.table for own in (config, *config.external)]
    read = paths_read(config, *folders, *tables, config.mirror, archives)
    out = Path(os.path.realpath(config.out))
    for folder in folders:
        if out.is_relative_to(os.path.realpath(folder)):
            raise ValueError(
                f"{config.out} lies in {folder}, whose folders are all read as images; choose "
                "another folder for the output"
            )
    with output_folder(config.out, "data", read) as out:
        _prepare(config, out)


def _prepare(config: Config, out: Path) -> None:
    limits = (config.max_per_class, config.max_masks, config.seed, config.tasks)
    choice = choose_records(_read_source(config), config.classes, *limits)
    external = {
        own.title: choose_external(
            _read_own(own, own.source), config.classes, config.tasks, own.title
        )
        for own in config.external
    }
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
    learned = (parts.keep & parts.frame["split"].isin(("train", "val"))).to_numpy()
    for name, own in external.items():
        here = prepare_images(own.kept, replace(plan, out=out / EXTERNAL / name), config.workers)
        together, _ = duplicates_of([*prepared, *identified, *here])
        seen = len(prepared) + len(identified)
        related = related_to(everyone, seen, identities(own.kept), together, learned)
        counts.setdefault(EXTERNAL, {})[name] = _write_external(
            out / EXTERNAL / name, own, here, related
        )
    write_json(out / "summary.json", counts)
    write_text(out / "config.json", config.model_dump_json(indent=2) + "\n")
    _remove_files(out, parts.frame[~parts.keep])
    LOGGER.info("images by split: %s", kept["split"].value_counts().to_dict())


def _write_external(
    folder: Path, chosen: Choice, prepared: Sequence[Prepared], related: np.ndarray
) -> dict[str, Any]:
    """Write the manifest of an external set, without what is related; what `summary.json` says."""
    frame = as_table(prepared).assign(split="test", cluster="")
    if related.all():
        raise SourceError(
            f"external set {folder.name}: all {len(frame)} images are related to training or "
            "validation images, expected some that are not; leave the set out"
        )
    LOGGER.info("external set %s: %d images, %d left out as relatives of training or validation "
                "images", folder.name, len(frame), related.sum())  # fmt: skip
    write_manifest(frame[~related], folder / "test.csv")
    _remove_files(folder, frame[related])
    here = [item for item, out in zip(prepared, related, strict=True) if not out]
    left_out = chosen.left_out | {"related to training or validation images": int(related.sum())}
    return summary(frame[~related], here, left_out, frame["source"].iloc[0])


def _remove_files(folder: Path, rows: pd.DataFrame) -> None:
    for name in filter(None, [*rows["image"], *rows["mask"]]):
        (folder / name).unlink()


def _read_source(config: Config) -> list[Record]:
    if config.source == "phantoms":
        return phantom_records(config.phantoms, config.classes, config.seed)
    if config.source == "isic2018":
        folder = archives_folder(config.mirror, config.archives)
        if config.listing:
            folder = listed_folder(config.listing)
        return isic2018_records(folder, official=config.splits == "official")
    return _read_own(config, config.source)


def _read_own(images: ImageFolder, source: str) -> list[Record]:
    """The records of a source that is read from a table or a folder."""
    if source == "table":
        assert images.table is not None  # the settings refuse a source without what it needs
        return own_records(images.table, images.columns, images.labels)
    assert images.folder is not None
    if source == "folder":
        return folder_records(images.folder, images.labels)
    return published_records(images.folder, LAYOUTS[source])


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
