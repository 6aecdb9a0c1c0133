"""Prepare the external test sets, apart from what the run's networks learn from."""

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from didgen.data.duplicates import cluster_names
from didgen.data.external import check_testable, choose_external, related_to, relations
from didgen.data.manifest import read_manifest, resolve, write_manifest
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
from didgen.data.sources.records import FilePixels, Record, SourceError
from didgen.data.summary import summary
from didgen.runtime.files import write_json
from didgen.runtime.outputs import check_outside, output_folder, paths_read
from didgen.settings.data import ExternalSet
from didgen.settings.external_data import Config

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Item:
    """One of all images that may be related. compared: by pixels, too; of: its external set."""

    record: Record
    learned: bool
    compared: bool
    of: str = ""


def run(config: Config) -> None:
    """Write `<name>/test.csv` with its images for each set, `summary.json` and `config.json`.

    The run's own source is read again, and so are synthetic sets from elsewhere: an external image
    may be related to one that is learned from through others that the run leaves out.
    Raises: `SourceError` for a set that cannot be read, serves no task, or is all related.
    """
    archives = config.archives if config.source == "isic2018" else None
    folders = [own.folder for own in (config, *config.external) if own.folder]
    tables = [own.table for own in (config, *config.external)]
    read = paths_read(config, *folders, *tables, config.mirror, archives)
    for folder in folders:
        check_outside(config.out, folder)
    with output_folder(config.out, "external_data", read) as out:
        _prepare(config, out)


def _prepare(config: Config, out: Path) -> None:
    chosen = {own.title: _choose(own, config) for own in config.external}
    everything = [*_own(config), *_foreign(config)]
    for name, choice in chosen.items():
        everything += [_Item(record, False, False, name) for record in choice.kept]
        everything += [
            _Item(record, False, config.compare_left_out, name) for record in choice.passed_over
        ]
        everything += [_Item(record, False, False, name) for record in choice.excluded]
    plan = PreparationPlan(
        out, config.size, config.fit, config.hair_removal, config.near_duplicates
    )
    # By the place in the list: ids of two sources may be alike.
    looked_at = [
        replace(item.record, id=str(place))
        for place, item in enumerate(everything)
        if item.compared
    ]
    seen = {int(item.row["id"]): item for item in identify_images(looked_at, plan, config.workers)}
    lost = [
        item.record.id
        for place, item in enumerate(everything)
        if item.learned and item.compared and place not in seen
    ]
    if lost:
        raise SourceError(
            f"{len(lost)} images that networks learn from cannot be read ({', '.join(lost[:5])}), "
            "so nothing can be said to be unlike them; restore the files"
        )
    prepared = {
        name: prepare_images(choice.kept, replace(plan, out=out / name), config.workers)
        for name, choice in chosen.items()
    }
    places = {(item.of, item.record.id): place for place, item in enumerate(everything) if item.of}
    for name, items in prepared.items():
        seen |= {places[name, item.row["id"]]: item for item in items}
    pairs, _ = duplicates_of(list(seen.values()))
    clusters = dict(zip(seen, cluster_names(pairs, [str(place) for place in seen]), strict=True))
    frame = identities([item.record for item in everything])
    frame["cluster"] = [clusters.get(place, "") for place in range(len(everything))]
    learned = np.array([item.learned for item in everything])
    parents = _parents(config)
    frame = pd.concat([frame, parents], ignore_index=True).fillna("")
    learned = np.concatenate([learned, np.ones(len(parents), bool)])
    related = related_to(frame, learned)
    counts = {}
    for name, items in prepared.items():
        rows = np.array([places[name, item.row["id"]] for item in items])
        images = np.isin(np.arange(len(frame)), rows)
        why = relations(frame, learned, images & related)
        table = as_table(items).assign(cluster=frame["cluster"].to_numpy()[rows])
        counts[name] = _write_set(
            out / name, chosen[name], items, table, related[rows], why, config
        )
    write_json(out / "summary.json", counts)
    write_json(out / "config.json", json.loads(config.model_dump_json()))


def _choose(own: ExternalSet, config: Config) -> Choice:
    try:
        return choose_external(listed_records(own, own.source), config.classes, config.tasks)
    except SourceError as error:
        raise SourceError(f"external set {own.title}: {error}") from error


def _own(config: Config) -> list[_Item]:
    """The images of the run's own source, those that it leaves out too."""
    learned = {
        name for path in (config.train, config.val) for name in read_manifest(path, False)["id"]
    }
    limits = (config.max_per_class, config.max_masks, config.seed, config.tasks)
    choice = choose_records(source_records(config), config.classes, *limits)
    # No photograph resembles a phantom.
    kept, passed = config.source != "phantoms", config.compare_left_out
    return [
        *(_Item(record, record.id in learned, kept) for record in choice.kept),
        *(_Item(record, False, kept and passed) for record in choice.passed_over),
        *(_Item(record, False, False) for record in choice.excluded),
    ]


def _foreign(config: Config) -> list[_Item]:
    """The images of synthetic sets from elsewhere, which may be copies of anything."""
    items = []
    for path in config.sets:
        frame = read_manifest(path)
        for row, image in zip(frame.itertuples(), resolve(path, frame["image"]), strict=True):
            assert image is not None  # a manifest's rows have images
            known = (row.id, row.label, row.lesion_id, row.patient_id, row.source, "train")
            items.append(_Item(Record(*known, FilePixels(image)), True, True))
    return items


def _parents(config: Config) -> pd.DataFrame:
    """The ids of what synthetic sets from elsewhere say that they were made from."""
    frames = [read_manifest(path, check_files=False) for path in config.sets]
    for path, frame in zip(config.sets, frames, strict=True):
        told = [frame[key] != "" for key in ("parent_ids", "checkpoint") if key in frame]
        unknown = len(frame) - int(np.logical_or.reduce(told).sum()) if told else len(frame)
        if unknown:
            LOGGER.warning(
                "%s: %d of %d images say neither what they were made from (parent_ids) nor by "
                "which model (checkpoint): whether external images were among it cannot be seen",
                path, unknown, len(frame),
            )  # fmt: skip
    cells = [cell for frame in frames if "parent_ids" in frame for cell in frame["parent_ids"]]
    return pd.DataFrame(
        {"id": sorted({name for cell in cells for name in _names(cell)})}, dtype=str
    )


def _names(cell: str) -> list[str]:
    return [name for name in re.split(r"[^\w.-]+", cell) if name]


def _write_set(
    folder: Path, chosen: Choice, prepared: Sequence[Prepared], rows: pd.DataFrame,
    related: np.ndarray, why: dict[str, int], config: Config,
) -> dict[str, Any]:  # fmt: skip
    """Write the manifest of a set without what is related; returns what `summary.json` says."""
    told = ", ".join(f"{count} by {word}" for word, count in why.items())
    LOGGER.info("%s: %d images; %d left out as relatives of what is learned from (directly: %s)",
                folder.name, (~related).sum(), related.sum(), told)  # fmt: skip
    left = rows[related]
    for name in filter(None, [*left["image"], *left["mask"]]):
        (folder / name).unlink()
    frame = rows[~related].assign(split="test")
    frame["cluster"] = frame["cluster"].where(frame["cluster"].duplicated(keep=False), "")
    try:
        tasks = check_testable(frame, config.tasks)
    except SourceError as error:
        raise SourceError(
            f"external set {folder.name}: {related.sum()} of {len(rows)} images are related to "
            f"images that networks learn from (directly: {told}; where two sources number their "
            f"images, lesions or patients alike, rename them); of the others: {error}"
        ) from error
    write_manifest(frame, folder / "test.csv")
    here = [item for item, gone in zip(prepared, related, strict=True) if not gone]
    left_out = chosen.left_out | {"related to images that networks learn from": int(related.sum())}
    counts = summary(frame, here, left_out, frame["source"].iloc[0])
    return counts | {"tasks": tasks, "related_by": why}
