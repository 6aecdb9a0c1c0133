"""Prepare the external test sets, apart from what the run's networks learn from."""

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from didgen.data.duplicates import cluster_names
from didgen.data.external import choose_external, related_to
from didgen.data.manifest import read_manifest, write_manifest
from didgen.data.partition import duplicates_of
from didgen.data.preparation import (
    PreparationPlan,
    Prepared,
    as_table,
    identify_images,
    prepare_images,
)
from didgen.data.selection import Choice, choose_records, identities
from didgen.data.sources.opening import listed_records, source_records
from didgen.data.sources.records import SourceError
from didgen.data.summary import summary
from didgen.runtime.files import write_json
from didgen.runtime.outputs import output_folder, paths_read
from didgen.settings.external_data import Config

LOGGER = logging.getLogger(__name__)


def run(config: Config) -> None:
    """Write `<name>/test.csv` with its images for each set, `summary.json` and `config.json`.

    The run's own source is read again: an external image may be related to one that is learned
    from through others that the run leaves out.
    Raises: `SourceError` for a set that cannot be read, serves no task, or is all related.
    """
    folders = [own.folder for own in (config, *config.external) if own.folder]
    tables = [own.table for own in (config, *config.external)]
    read = paths_read(config, *folders, *tables)
    for folder in folders:
        if Path(os.path.realpath(config.out)).is_relative_to(os.path.realpath(folder)):
            raise ValueError(
                f"{config.out} lies in {folder}, whose folders are all read as images; choose "
                "another folder for the output"
            )
    with output_folder(config.out, "external_data", read) as out:
        _prepare(config, out)


def _prepare(config: Config, out: Path) -> None:
    chosen = {
        own.title: choose_external(
            listed_records(own, own.source), config.classes, config.tasks, own.title
        )
        for own in config.external
    }
    learned = {
        name for path in (config.train, config.val) for name in read_manifest(path, False)["id"]
    }
    limits = (config.max_per_class, config.max_masks, config.seed, config.tasks)
    choice = choose_records(source_records(config), config.classes, *limits)
    phantoms = config.source == "phantoms"
    plan = PreparationPlan(
        out, config.size, config.fit, config.hair_removal, config.near_duplicates and not phantoms
    )
    compared = [*choice.kept, *(choice.passed_over if config.compare_left_out else [])]
    # No photograph resembles a phantom.
    seen = identify_images([] if phantoms else compared, plan, config.workers)
    own_ids = [item.row["id"] for item in seen]
    prepared = {
        name: prepare_images(sets.kept, replace(plan, out=out / name), config.workers)
        for name, sets in chosen.items()
    }
    everything = [*seen, *(item for items in prepared.values() for item in items)]
    pairs, _ = duplicates_of(everything)
    clusters = cluster_names(pairs, [item.row["id"] for item in everything])
    everyone = identities(choice.everyone)
    own = dict(zip(own_ids, clusters, strict=False))
    everyone["cluster"] = [own.get(name, "") for name in everyone["id"]]
    # All sets together: one of another set may relate two.
    frames = {name: as_table(items) for name, items in prepared.items()}
    table = pd.concat(frames.values(), ignore_index=True)
    table["cluster"] = clusters[len(seen) :]
    table["related"] = related_to(everyone, table, everyone["id"].isin(learned).to_numpy())
    counts, start = {}, 0
    for name, items in prepared.items():
        rows = table.iloc[start : start + len(items)].reset_index(drop=True)
        start += len(items)
        counts[name] = _write_set(out / name, chosen[name], items, rows)
    write_json(out / "summary.json", counts)
    write_json(out / "config.json", json.loads(config.model_dump_json()))


def _write_set(
    folder: Path, chosen: Choice, prepared: Sequence[Prepared], rows: pd.DataFrame
) -> dict[str, Any]:
    """Write the manifest of a set without what is related; returns what `summary.json` says."""
    related = rows.pop("related").to_numpy(bool)
    if related.all():
        raise SourceError(
            f"external set {folder.name}: all {len(rows)} images are related to training or "
            "validation images, expected some that are not; leave the set out"
        )
    LOGGER.info("%s: %d images; %d left out as relatives of training or validation images",
                folder.name, (~related).sum(), related.sum())  # fmt: skip
    left = rows[related]
    for name in filter(None, [*left["image"], *left["mask"]]):
        (folder / name).unlink()
    frame = rows[~related].assign(split="test")
    frame["cluster"] = frame["cluster"].where(frame["cluster"].duplicated(keep=False), "")
    write_manifest(frame, folder / "test.csv")
    here = [item for item, gone in zip(prepared, related, strict=True) if not gone]
    left_out = chosen.left_out | {"related to training or validation images": int(related.sum())}
    return summary(frame, here, left_out, frame["source"].iloc[0])
