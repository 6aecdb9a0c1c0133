"""Read the source, prepare its images, split them without leaks, write manifests and the audit."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from didgen.data.classes import CLASSES
from didgen.settings.base import Section, Words

if TYPE_CHECKING:
    from didgen.data.sources.records import Record

LOGGER = logging.getLogger(__name__)
Code = Literal["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
# Sources that are read from `folder`; all but `folder` itself are published data sets.
FOLDER_SOURCES = ("folder", "ham10000", "isic2019", "isic2020", "ph2", "bcn20000", "pad-ufes-20")
# Keys that only some sources read: set for another, they would be without effect.
READ_BY = {
    "phantoms": ("phantoms",),
    "mirror": ("isic2018",),
    "table": ("table",),
    "columns": ("table",),
    "labels": ("table", "folder"),
    "folder": FOLDER_SOURCES,
}


class Settings(Section):
    """Which images, at what size, and how they are split."""

    source: Literal[
        "phantoms", "isic2018", "table", "folder",
        "ham10000", "isic2019", "isic2020", "ph2", "bcn20000", "pad-ufes-20",
    ] = Field(
        "phantoms",
        description="where images come from: `phantoms` (built-in generator), `isic2018` (the "
        "challenge's archives), `table` (your own images, listed in `table`), `folder` (your own "
        "images, sorted into folders by class), or a published data set unpacked in `folder`",
    )  # fmt: skip
    mirror: str | None = Field(
        None,
        min_length=1,
        description="address or folder of the ISIC 2018 archives; a folder is used in place; null: "
        "the challenge's own servers",
    )
    archives: str = Field(
        "data/isic2018",
        min_length=1,
        description="folder where downloaded archives are kept; source isic2018",
    )
    offline: bool = Field(False, description="download nothing: say what is missing instead")
    folder: str | None = Field(
        None,
        min_length=1,
        description="folder of your own images or of a published data set; needed by the sources "
        "that are read from one",
    )
    table: str | None = Field(
        None,
        description="CSV of your own images: id, image and, optional, mask, label, lesion_id, "
        "patient_id, split; file names relative to it; needed by source table",
    )
    columns: dict[str, str] = Field(
        {}, description="our column names to those of `table`, where they differ"
    )
    labels: Words = Field(
        {},
        description="the words of `table` or `folder` for a class to its ISIC code; null: no class",
    )
    classes: tuple[Code, ...] = Field(
        tuple(CLASSES), min_length=2, description="diagnoses to keep, as ISIC codes"
    )
    size: int = Field(128, ge=32, le=1024, multiple_of=8, description="side of the images, px")
    fit: Literal["crop", "pad", "squash"] = Field(
        "crop", description="how a photograph becomes square: center-crop, pad with black, squash"
    )
    hair_removal: bool = Field(
        False, description="replace dark hair (and ruler ticks) by the colors around it"
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
    tasks: tuple[Literal["classification", "segmentation"], ...] = Field(
        ("classification", "segmentation"),
        min_length=1,
        description="what the run is judged on; without `segmentation` the images need no masks, "
        "and no pairs are made; without `classification` they need no labels, and no images are "
        "made from text alone",
    )
    splits: Literal["auto", "grouped", "official"] = Field(
        "auto",
        description="`grouped`: new ones by patient, lesion and cluster of duplicates, stratified "
        "by class; `official`: those that the source states, val taken out of train where it "
        "states none; `auto`: official where the images state train and test, else grouped; "
        "isic2018 states its own only where `official` is asked for",
    )
    near_duplicates: bool = Field(
        True,
        description="find photographs of one lesion by their pixels, over all tasks, and keep them "
        "in one split; exact copies are found in any case; phantoms are not compared",
    )
    compare_left_out: bool = Field(
        True,
        description="also decode and compare the images that `max_per_class`, `max_masks` and "
        "`classes` leave out: two images that only a third one relates then stay together; false "
        "is faster, and still follows the lesions and patients of images left out",
    )
    on_leak: Literal["drop", "error", "warn"] = Field(
        "drop",
        description="what becomes of related images in two official splits: `drop` leaves "
        "relatives of test images out of train and val, and those of val images out of train",
    )
    val_fraction: float = Field(
        0.15,
        gt=0,
        lt=0.5,
        description="share of validation images: of all, grouped; of train, where an official "
        "split has no val. Groups stay whole, so shares are met nearly: summary.json says how",
    )
    test_fraction: float = Field(0.25, gt=0, lt=0.5, description="share of test images, grouped")

    @model_validator(mode="after")
    def _source_has_what_it_needs(self) -> "Settings":
        if self.mirror and "://" in self.mirror and ("@" in self.mirror or "?" in self.mirror):
            # The key travels into commands, logs and the report, where no secret may stand.
            raise ValueError(
                "mirror: found an address with a user or a query, expected one without; keep names "
                "and passwords in ~/.netrc, which downloads read"
            )
        if self.source == "table" and not self.table:
            raise ValueError("source table needs `table`, a CSV of your images; found null")
        if self.source in FOLDER_SOURCES and not self.folder:
            raise ValueError(
                f"source {self.source} needs `folder`, where its images are; found null"
            )
        if self.source == "phantoms" and self.splits == "official":
            raise ValueError("phantoms have no official splits; use splits: grouped")
        for key, sources in READ_BY.items():
            found = getattr(self, key)
            if self.source not in sources and found != type(self).model_fields[key].default:
                raise ValueError(
                    f"{key}: found {found!r}, but source {self.source} does not read it, only "
                    f"{', '.join(sources)}; remove it or choose such a source"
                )
        if self.splits == "official" and self.test_fraction != 0.25:
            raise ValueError(
                f"test_fraction: found {self.test_fraction}, but splits: official keeps the test "
                "set that the source states; remove it or use splits: grouped"
            )
        if len(set(self.tasks)) != len(self.tasks):
            raise ValueError(f"tasks repeat: found {list(self.tasks)}; name each once")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes repeat: found {list(self.classes)}; name each once")
        return self


class Config(Settings):
    """Settings and paths of the stage."""

    seed: int = Field(0, ge=0, description="seed of the phantoms, of the draw and of the split")
    listing: Path | None = Field(
        None,
        description="JSON that `fetch` wrote: the archives of source isic2018; null: they are "
        "sought where `mirror` and `archives` say",
    )
    workers: int | None = Field(None, ge=1, le=256, description="processes; null: one a core")
    out: Path = Field(description="folder to write: images/, masks/, train.csv, val.csv, test.csv")


def run(config: Config) -> None:
    """Write images, masks, one manifest a split, `leaks.json`, `summary.json` and `config.json`.

    Raises: `SourceError`, `SplitError`, `LeakError` or `ManifestError` before anything is named as
    finished; what can be told without pixels, before any is read.
    """
    from didgen.data.manifest import SPLITS, write_manifest
    from didgen.data.partition import SplitRule, check_before_pixels, duplicates_of, partition
    from didgen.data.preparation import Plan, as_table, look_at_images, prepare_images
    from didgen.data.selection import choose_records, identities
    from didgen.data.summary import summary
    from didgen.runtime.files import remove_unlisted, write_json, write_text

    limits = (config.max_per_class, config.max_masks, config.seed, config.tasks)
    choice = choose_records(_read_source(config), config.classes, *limits)
    rule = SplitRule(
        config.splits, config.on_leak, config.val_fraction, config.test_fraction, config.seed,
        config.tasks,
    )  # fmt: skip
    kept, everyone = identities(choice.kept), identities(choice.everyone)
    basis = check_before_pixels(kept, everyone, rule, f"source {config.source}")
    _claim_folder(config.out)
    LOGGER.info("preparing %d images at %d px", len(choice.kept), config.size)
    phantoms = config.source == "phantoms"
    near = config.near_duplicates and not phantoms
    plan = Plan(config.out, config.size, config.fit, config.hair_removal, near)
    prepared = prepare_images(choice.kept, plan, config.workers)
    # Two images that only a third one relates belong together, even where the third is left out.
    compared = choice.passed_over if config.compare_left_out and not phantoms else []
    looked = look_at_images(compared, plan, config.workers)
    pairs, finder = duplicates_of([*prepared, *looked])
    everyone = identities(choice.in_order([item.row["id"] for item in looked]))
    parts = partition(as_table(prepared), everyone, pairs, basis, rule, finder)
    kept = parts.frame[parts.keep]
    for split in SPLITS:
        write_manifest(kept[kept["split"] == split], config.out / f"{split}.csv")
    _check_written(config.out)
    write_json(config.out / "leaks.json", parts.leaks | {"n_compared": len(prepared) + len(looked)})
    left_out = choice.left_out | {"related to a later split": int((~parts.keep).sum())}
    here = [item for item, stays in zip(prepared, parts.keep, strict=True) if stays]
    told = summary(kept, here, left_out, config.source) | {"split_rule": parts.told}
    write_json(config.out / "summary.json", told)
    write_text(config.out / "config.json", config.model_dump_json(indent=2) + "\n")
    remove_unlisted(config.out, ("images", "masks"), [*kept["image"], *kept["mask"]])
    LOGGER.info("images by split: %s", kept["split"].value_counts().to_dict())


def _claim_folder(out: Path) -> None:
    """Mark the folder as ours: files in its images/ and masks/ that no manifest lists are removed.

    Manifests of an earlier run go: from here on their images are overwritten.
    Raises: `SourceError` when these folders hold files that no preparation wrote.
    """
    from didgen.data.manifest import SPLITS
    from didgen.data.sources.records import SourceError
    from didgen.runtime.files import write_text

    mark = out / ".prepared"
    ours = mark.exists() or (out / "config.json").exists()
    for folder in (out / "images", out / "masks"):
        if not ours and folder.is_dir() and any(folder.iterdir()):
            raise SourceError(
                f"{folder}: holds files that no preparation wrote, and would be overwritten; "
                "choose another --out, not the folder of your own images"
            )
    for split in SPLITS:
        (out / f"{split}.csv").unlink(missing_ok=True)
    write_text(mark, "images/ and masks/ here belong to `didgen prepare`\n")


def _read_source(config: Config) -> list["Record"]:
    if config.source == "phantoms":
        from didgen.data.sources.phantom import phantom_records

        return phantom_records(config.phantoms, config.classes, config.seed)
    if config.source == "isic2018":
        from didgen.data.mirror import archives_folder, listed_folder
        from didgen.data.sources.isic2018 import isic2018_records

        folder = archives_folder(config.mirror, config.archives)
        if config.listing:
            folder = listed_folder(config.listing)
        return isic2018_records(folder, official=config.splits == "official")
    if config.source == "table":
        from didgen.data.sources.own import own_records

        return own_records(config.table, config.columns, config.labels)
    if config.source == "folder":
        from didgen.data.sources.own import folder_records

        return folder_records(config.folder, config.labels)
    import importlib

    from didgen.data.sources import SOURCES

    module, function = SOURCES[config.source].split(":")
    return getattr(importlib.import_module(module), function)(Path(config.folder))


def _check_written(out: Path) -> None:
    """Assert on the manifests as written that nothing related stands in two splits.

    Raises: `ManifestError`. Leaks that the user accepts (`on_leak: warn`) are marked, and pass.
    """
    import pandas as pd

    from didgen.data.leaks import ACCEPTED
    from didgen.data.manifest import SPLITS, check_groups, check_identities, read_manifest

    files = [out / f"{split}.csv" for split in SPLITS]
    frame = pd.concat([read_manifest(path, check_files=False) for path in files])
    check_identities(frame, "manifests as written")
    if "leak" in frame:
        frame = frame[frame["leak"] != ACCEPTED]
    check_groups(frame, "manifests as written")
