"""Read the source, split it by patient and lesion, write square images, masks and manifests."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from didgen.data.classes import CLASSES
from didgen.data.settings import Section

if TYPE_CHECKING:
    import pandas as pd

    from didgen.data.sources.records import Record

LOGGER = logging.getLogger(__name__)
Code = Literal["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]


class Settings(Section):
    """Which images, at what size, and how they are split."""

    source: Literal["phantoms", "isic2018", "table"] = Field(
        "phantoms",
        description="where images come from: `phantoms` (built-in generator), `isic2018` (the "
        "challenge's archives in `mirror`), `table` (your own images, listed in `table`)",
    )
    mirror: str | None = Field(
        None, description="folder with the ISIC 2018 archives; needed by source isic2018"
    )
    table: str | None = Field(
        None,
        description="CSV of your own images: id, image and, optional, mask, label, lesion_id, "
        "patient_id, split; file names relative to it; needed by source table",
    )
    classes: tuple[Code, ...] = Field(
        tuple(CLASSES), min_length=2, description="diagnoses to keep, as ISIC codes"
    )
    size: int = Field(128, ge=32, le=1024, multiple_of=8, description="side of the images, px")
    fit: Literal["crop", "pad", "squash"] = Field(
        "crop", description="how a photograph becomes square: center-crop, pad with black, squash"
    )
    phantoms: int = Field(700, ge=56, description="number of phantoms; source phantoms only")
    max_per_class: int | None = Field(
        None, ge=3, description="labelled images kept of each class, drawn by seed; null: all"
    )
    max_masks: int | None = Field(
        None,
        ge=6,
        description="images kept that have a mask but no label, drawn by seed; null: all",
    )
    splits: Literal["grouped", "official"] = Field(
        "grouped",
        description="`grouped`: by patient and lesion, stratified by class; `official`: the "
        "splits that the source brings (isic2018, or the table's split column)",
    )
    val_fraction: float = Field(
        0.15, gt=0, lt=0.5, description="share of validation images, grouped"
    )
    test_fraction: float = Field(0.25, gt=0, lt=0.5, description="share of test images, grouped")

    @model_validator(mode="after")
    def _source_has_what_it_needs(self) -> "Settings":
        if self.source == "isic2018" and not self.mirror:
            raise ValueError(
                "source isic2018 needs `mirror`, the folder with the ISIC 2018 archives; found "
                "null. On the command line: --config mirror=DIR"
            )
        if self.source == "table" and not self.table:
            raise ValueError("source table needs `table`, a CSV of your images; found null")
        if self.source == "phantoms" and self.splits == "official":
            raise ValueError("phantoms have no official splits; use splits: grouped")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes repeat: found {list(self.classes)}; name each once")
        return self


class Config(Settings):
    """Settings and paths of the stage."""

    seed: int = Field(0, ge=0, description="seed of the phantoms, of the draw and of the split")
    out: Path = Field(description="folder to write: images/, masks/, train.csv, val.csv, test.csv")


def run(config: Config) -> None:
    """Write images, masks, one manifest a split, `summary.json` and `config.json`.

    Raises: `SourceError`, `SplitError` or `ManifestError` before anything is named as finished.
    """
    from didgen.data.files import remove_unlisted, write_json, write_text
    from didgen.data.manifest import SPLITS, check_manifest, write_manifest

    records, left_out = _choose(_read_source(config), config)
    records = _split(records, config)
    _check_records(records, config)
    LOGGER.info("preparing %d images at %d px", len(records), config.size)
    frame = _write_images(records, config)
    check_manifest(frame, "prepared images")
    for split in SPLITS:
        write_manifest(frame[frame["split"] == split], config.out / f"{split}.csv")
    write_json(config.out / "summary.json", _summary(frame, left_out, config))
    write_text(config.out / "config.json", config.model_dump_json(indent=2) + "\n")
    remove_unlisted(config.out, ("images", "masks"), [*frame["image"], *frame["mask"]])
    LOGGER.info("images by split: %s", frame["split"].value_counts().to_dict())


def _read_source(config: Config) -> list["Record"]:
    if config.source == "phantoms":
        from didgen.data.sources.phantom import phantom_records

        return phantom_records(config.phantoms, config.classes, config.seed)
    if config.source == "isic2018":
        from didgen.data.sources.isic2018 import isic2018_records

        return isic2018_records(config.mirror, official=config.splits == "official")
    from didgen.data.sources.own import own_records

    return own_records(config.table)


def _choose(records: list["Record"], config: Config) -> tuple[list["Record"], dict[str, int]]:
    """Apply `classes`, `max_per_class` and `max_masks`; say how many each rule left out."""
    import hashlib

    from didgen.data.sources.records import SourceError

    def order(record: "Record") -> bytes:
        return hashlib.sha256(f"{config.seed}/{record.id}".encode()).digest()

    kept, taken, left = [], {}, {"other classes": 0, "over max_per_class": 0, "over max_masks": 0}
    for record in sorted(records, key=order):
        limit = config.max_per_class if record.label else config.max_masks
        if record.label and record.label not in config.classes:
            left["other classes"] += 1
        elif limit is not None and taken.get(record.label, 0) >= limit:
            left["over max_per_class" if record.label else "over max_masks"] += 1
        else:
            taken[record.label] = taken.get(record.label, 0) + 1
            kept.append(record)
    absent = [code for code in config.classes if not taken.get(code)]
    if absent:
        raise SourceError(
            f"data.classes asks for {absent}, but the source has no image of them; found "
            f"{sorted(code for code in taken if code)}; remove them from data.classes"
        )
    for rule, count in left.items():
        if count:
            LOGGER.info("%d of %d images left out: %s", count, len(records), rule)
    return sorted(kept, key=lambda record: record.id), left


def _split(records: list["Record"], config: Config) -> list["Record"]:
    from dataclasses import replace

    from didgen.data.sources.records import SourceError
    from didgen.data.splits import grouped_split, related_groups

    if config.splits == "official":
        open_ones = [record.id for record in records if not record.split]
        if open_ones:
            raise SourceError(
                f"splits: official, but {len(open_ones)} images have no split "
                f"({', '.join(open_ones[:5])}, ...); fill the split column or use splits: grouped"
            )
        return records
    groups = related_groups([r.lesion_id for r in records], [r.patient_id for r in records])
    chosen = grouped_split(
        [record.label or "mask only" for record in records],
        groups,
        config.val_fraction,
        config.test_fraction,
        config.seed,
    )
    return [replace(record, split=split) for record, split in zip(records, chosen, strict=True)]


def _check_records(records: list["Record"], config: Config) -> None:
    """Find out what no pixels are needed for, before hours may be spent on writing them."""
    from collections import Counter

    import pandas as pd

    from didgen.data.manifest import SPLITS, check_identities
    from didgen.data.splits import SplitError

    columns = ("id", "split", "lesion_id", "patient_id")
    frame = pd.DataFrame([{name: getattr(r, name) for name in columns} for r in records])
    check_identities(frame, f"source {config.source}")
    found = Counter(frame["split"])
    empty = [split for split in SPLITS if not found[split]]
    if empty:
        remedy = "correct the source's splits or use data.splits: grouped"
        if config.splits == "grouped":
            remedy = "add images of other patients or raise the fractions"
        raise SplitError(
            f"no image for {' and '.join(empty)}: found {dict(found)}, expected at least one image "
            f"in each of {', '.join(SPLITS)}; {remedy}"
        )
    frame["label"] = [record.label for record in records]
    frame["mask"] = [record.pixels.has_mask for record in records]
    for split, rows in frame.groupby("split"):
        labels = set(rows["label"]) - {""}
        if len(labels) < 2 or not rows["mask"].any():
            raise SplitError(
                f"split {split}: found labels {sorted(labels)} and {int(rows['mask'].sum())} masks "
                f"in {len(rows)} images, expected at least two diagnoses and one mask: the verdict "
                "judges a classifier and a segmenter on every split; add labelled images or masks"
            )


def _write_images(records: list["Record"], config: Config) -> "pd.DataFrame":
    """Load, fit and write all images in parallel; memory holds one image a process."""
    import os
    from concurrent.futures import ProcessPoolExecutor
    from functools import partial
    from multiprocessing import get_context

    import pandas as pd

    from didgen.data.progress import track
    from didgen.data.sources.records import SourceError

    work = partial(_write_one, out=config.out, size=config.size, fit=config.fit)
    # A forked worker could inherit held locks of threaded libraries; spawned ones start clean.
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("spawn")) as pool:
        results = pool.map(work, records, chunksize=16)
        rows = list(track(results, total=len(records), label="prepare"))
    failures = [row["error"] for row in rows if "error" in row]
    if failures:
        shown = "\n  ".join(failures[:5])
        raise SourceError(f"{len(failures)} of {len(rows)} images cannot be used:\n  {shown}")
    return pd.DataFrame(rows)


def _write_one(record: "Record", out: Path, size: int, fit: str) -> dict:
    from didgen.data.files import sha256_file, write_png
    from didgen.data.images import ImageError
    from didgen.data.sources.records import SourceError

    try:
        image, mask = record.pixels.load(size, fit)
    except (ImageError, SourceError) as error:
        return {"error": f"{record.id}: {error}"}
    name = f"images/{record.id}.png"
    write_png(out / name, image)
    mask_name = ""
    if mask is not None:
        mask_name = f"masks/{record.id}.png"
        write_png(out / mask_name, mask)
    return {
        "id": record.id,
        "image": name,
        "mask": mask_name,
        "label": record.label,
        "split": record.split,
        "lesion_id": record.lesion_id,
        "patient_id": record.patient_id,
        "source": record.source,
        "width": size,
        "height": size,
        "sha256": sha256_file(out / name),
    }


def _summary(frame: "pd.DataFrame", left_out: dict[str, int], config: Config) -> dict:
    def distinct(column: str) -> int:
        return int(frame.loc[frame[column] != "", column].nunique())

    counts = frame.assign(label=frame["label"].replace("", "mask only"))
    counts = counts.groupby(["split", "label"]).size()
    return {
        "source": config.source,
        "n_images": len(frame),
        "n_lesions": distinct("lesion_id"),
        "n_patients": distinct("patient_id"),
        "n_with_mask": int((frame["mask"] != "").sum()),
        "n_with_label": int((frame["label"] != "").sum()),
        "left_out": left_out,
        "splits": {
            split: {label: int(n) for (s, label), n in counts.items() if s == split}
            for split in ("train", "val", "test")
        },
    }
