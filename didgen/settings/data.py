"""Settings of `data`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from didgen.settings.arms import Task
from didgen.settings.base import CODES, Code, Place, Seeded, SettingsSection, Words
from didgen.settings.fetch import Archives

# Sources that are read from `folder`; all but `folder` itself are published data sets.
Fit = Literal["crop", "pad", "squash"]
LeakPolicy = Literal["drop", "error", "warn"]
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


class ImageFolder(SettingsSection):
    """Where images lie that are read from a folder or listed in a table."""

    folder: Place | None = Field(
        None,
        min_length=1,
        description="folder of your own images or of a published data set; needed by the sources "
        "that are read from one",
    )
    table: Place | None = Field(
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


class ExternalSet(ImageFolder):
    """A data set that is tested on and never trained on."""

    source: Literal[
        "table", "folder", "ham10000", "isic2019", "isic2020", "ph2", "bcn20000", "pad-ufes-20"
    ] = Field(
        description="as `data.source`; all its images are for testing, whatever split they state"
    )
    name: str | None = Field(
        None,
        pattern=r"^[a-z0-9][a-z0-9_-]*$",
        max_length=60,
        description="what results call it; null: as its source",
    )

    @property
    def title(self) -> str:
        """What results call it."""
        return self.name or self.source

    @model_validator(mode="after")
    def _source_has_what_it_needs(self) -> "ExternalSet":
        _check_source(self, self.source)
        return self


def _check_source(own: ImageFolder, source: str) -> None:
    """Raises: ValueError where a source lacks what it reads, or a key is set that it does not."""
    if source == "table" and not own.table:
        raise ValueError("source table needs `table`, a CSV of your images; found null")
    if source in FOLDER_SOURCES and not own.folder:
        raise ValueError(f"source {source} needs `folder`, where its images are; found null")
    for key, sources in READ_BY.items():
        value = getattr(own, key, None)
        default = type(own).model_fields[key].default if key in type(own).model_fields else None
        if source not in sources and value != default:
            raise ValueError(
                f"{key}: found {value!r}, but source {source} does not read it, only "
                f"{', '.join(sources)}; remove it or choose such a source"
            )


class Settings(Archives, ImageFolder):
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
    classes: tuple[Code, ...] = Field(
        CODES, min_length=2, description="diagnoses to keep, as ISIC codes"
    )
    size: int = Field(
        128, ge=32, le=1024, multiple_of=8, description="side of the images, px; the paper: 512"
    )
    fit: Fit = Field(
        "crop",
        description="how a photograph becomes square: center-crop, pad with black, or squash, "
        "as released",
    )
    hair_removal: bool = Field(
        False, description="replace dark hair (and ruler ticks) by the colors around it"
    )
    phantoms: int = Field(
        700, ge=56, le=1_000_000, description="number of phantoms; source phantoms only"
    )
    max_per_class: int | None = Field(
        None,
        ge=3,
        le=10_000_000,
        description="labelled images kept of each class, drawn by seed; null: all",
    )
    max_masks: int | None = Field(
        None,
        ge=6,
        le=10_000_000,
        description="images kept that have a mask but no label, drawn by seed; null: all",
    )
    tasks: tuple[Task, ...] = Field(
        ("classification", "segmentation"),
        min_length=1,
        description="what the run is judged on; without `segmentation` the images need no masks, "
        "and no pairs are made; without `classification` they need no labels, and no images are "
        "made from text alone",
    )
    external: tuple[ExternalSet, ...] = Field(
        (),
        max_length=100,
        description="data sets that nothing is trained on, to test on beside the run's own test "
        "images; relatives of training and validation images are left out of them",
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
    on_leak: LeakPolicy = Field(
        "drop",
        description="what becomes of related images in two official splits: `drop` leaves "
        "relatives of test images out of train and val, and those of val images out of train",
    )
    val_fraction: float = Field(
        0.15,
        gt=0,
        lt=0.5,
        description="share of validation images: of all, grouped; of train, where an official "
        "split has no val, or of train and val, where it has too few of a class. Groups stay whole,"
        " so shares are met nearly: summary.json says how",
    )
    test_fraction: float = Field(0.25, gt=0, lt=0.5, description="share of test images, grouped")

    @model_validator(mode="after")
    def _source_has_what_it_needs(self) -> "Settings":
        _check_source(self, self.source)
        if self.source == "phantoms" and self.splits == "official":
            raise ValueError("phantoms have no official splits; use splits: grouped")
        if self.splits == "official" and self.test_fraction != 0.25:
            raise ValueError(
                f"test_fraction: found {self.test_fraction}, but splits: official keeps the test "
                "set that the source states; remove it or use splits: grouped"
            )
        titles = [own.title for own in self.external]
        if len(set(titles)) != len(titles):
            raise ValueError(
                f"external: found the names {titles}, expected different ones; set `name`"
            )
        if len(set(self.tasks)) != len(self.tasks):
            raise ValueError(f"tasks repeat: found {list(self.tasks)}; name each once")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes repeat: found {list(self.classes)}; name each once")
        return self


class ReadSource(Settings, Seeded):
    """What a stage needs that reads the source."""

    listing: Path | None = Field(
        None,
        description="JSON that `fetch` wrote: the archives of source isic2018; null: they are "
        "sought where `mirror` and `archives` say",
    )
    workers: int | None = Field(None, ge=1, le=256, description="processes; null: one a core")


class Config(ReadSource):
    """Settings and paths of the stage."""

    out: Path = Field(description="folder to write: images/, masks/, train.csv, val.csv, test.csv")
