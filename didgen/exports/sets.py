"""The images of an export, read from a run's folders and checked before anything is written."""

import filecmp
import html
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from didgen.data.images import check_kind, read_mask
from didgen.data.leaks import ACCEPTED
from didgen.data.manifest import (
    SPLITS,
    ManifestError,
    check_groups,
    check_identities,
    read_manifest,
    resolve,
)
from didgen.data.sources.catalog import provenance
from didgen.data.sources.tables import check_ids
from didgen.runtime.files import place_file, read_object, sha256_file, write_csv
from didgen.settings.methods import METHODS
from didgen.settings.sets import OWN

LOGGER = logging.getLogger(__name__)
SYNTHETIC, REAL = "synthetic", "real"
# Sources whose names are the user's own words, whatever they resemble.
OWN_SOURCES = ("table", "folder")
# Of `images.csv`, in this order: those that a set has.
COLUMNS = (
    "id", "origin", "split", "set", "label", "lesion_id", "caption", "method", "seed",
    "checkpoint", "parent_ids", "mask_source", "source", "licence", "width", "height", "sha256",
)  # fmt: skip
# Of `real_ids.csv`. No lesion or patient: of a clinic's own data these may name a person.
LISTED = ("id", "split", "label", "source", "licence", "sha256")


@dataclass(frozen=True)
class Sets:
    """What is written, and the real images that are only named.

    Both are manifests with the columns `origin`, `licence`, `citation` and `mask_source`; of
    `images`, `image`, `mask` and `condition` are absolute paths, or None.
    """

    images: pd.DataFrame
    named: pd.DataFrame

    def with_masks(self) -> "Sets":
        """Those with a mask. Raises: ValueError when none is left to write.

        An image without one is none without a lesion, as which other tools would read it.
        """
        images = self.images[self.images["mask"].notna()]
        if images.empty:
            raise ValueError(
                f"found {len(self.images)} images and no mask, expected some: this format has "
                "nothing else; export as imagefolder, or a set with pairs"
            )
        return replace(
            self,
            images=images.reset_index(drop=True),
            named=self.named[self.named["mask"] != ""].reset_index(drop=True),
        )


def read_sets(run_dir: Path, name: str, generator: int, real: bool) -> Sets:
    """The synthetic set `name` of a run's generator, and its real images, to be written if `real`.

    Lesions are numbered anew: their ids may name a person. A pair has no label, for nobody has seen
    in it what its mask's image shows.
    Raises: `ManifestError` for a damaged table, an id or lesion that stands twice, a synthetic
    image outside train; `SourceError` for ids that cannot be file names everywhere; `ImageError` or
    `ValueError` for an image that is no 8-bit RGB PNG of its size, or another than its table says,
    a damaged mask, a link out of the folder, or real pixels that nobody asked for.
    """
    if name in METHODS and METHODS[name].real_pixels and not real:
        raise ValueError(
            f"set: found {name}, whose images hold parts of real photographs, expected real: true: "
            "their licences and citations go with them, and decide whether they may be passed on"
        )
    folder = run_dir / f"generator{generator}" if generator else run_dir
    folder = folder if name == OWN else folder / "methods" / name
    table = folder / "augment" / "metadata.csv"
    synthetic = _located(read_manifest(table), table)
    synthetic.loc[synthetic.get("set", "") == "pairs", "label"] = ""
    strange = sorted(set(synthetic["split"]) - {"train"})
    if strange:
        raise ManifestError(
            f"{table}: found synthetic images in {strange}, expected them in train alone, or other "
            "tools would be tested on them; correct the column split"
        )
    synthetic["origin"] = SYNTHETIC
    synthetic["licence"], synthetic["citation"] = "", ""
    # Beside images that have none a number would become a float.
    synthetic["seed"] = synthetic["seed"].astype(object)
    synthetic["mask_source"] = [
        _mask_source(*row)
        for row in zip(synthetic["method"], synthetic["mask"], synthetic["condition"], strict=True)
    ]
    tables = [run_dir / "data" / f"{split}.csv" for split in SPLITS]
    frames = [read_manifest(path, check_files=real) for path in tables]
    if real:
        frames = [_located(frame, path) for frame, path in zip(frames, tables, strict=True)]
    described = run_dir / "data" / "config.json"
    own = described.is_file() and read_object(described).get("source") in OWN_SOURCES
    known = _sourced(pd.concat(frames, ignore_index=True), own)
    everything = pd.concat([synthetic, known], ignore_index=True)
    everything = everything.fillna({"lesion_id": "", "patient_id": ""})
    where = f"{table} and {tables[0].parent}"
    check_ids(everything["id"], where)
    check_identities(everything, where)
    accepted = everything.get("leak", pd.Series("", everything.index)) == ACCEPTED
    if accepted.any():
        LOGGER.warning("%d images have relatives in another split, by data.on_leak: warn",
                       int(accepted.sum()))  # fmt: skip
    check_groups(everything[~accepted], where)
    lesions = pd.factorize(everything["lesion_id"])[0]
    everything["lesion_id"] = [
        f"lesion{number}" if lesion else ""
        for number, lesion in zip(lesions, everything["lesion_id"], strict=True)
    ]
    images = everything if real else everything[everything["origin"] == SYNTHETIC]
    images = images.reset_index(drop=True).astype({"mask": object, "condition": object})
    images = images.where(images.notna(), None)
    for row in images.to_dict("records"):
        _check_files(row)
    return Sets(images, known.iloc[:0] if real else known)


def _located(frame: pd.DataFrame, table: Path) -> pd.DataFrame:
    """With absolute paths in place of names. Raises: ValueError for links out of the folder."""
    places = {
        column: pd.Series(resolve(table, frame.get(column, [""] * len(frame))), dtype=object)
        for column in ("image", "mask", "condition")
    }
    root = os.path.realpath(table.parent)
    for path in (path for paths in places.values() for path in paths if path is not None):
        if not Path(os.path.realpath(path)).is_relative_to(root):
            raise ValueError(
                f"{path}: found a link to {os.path.realpath(path)}, expected a file in {root}: an "
                "export is made to be passed on; put the file itself there"
            )
    return frame.assign(**places)


def _mask_source(method: str, mask: Path | None, condition: Path | None) -> str:
    """Where a synthetic mask comes from: `read` from the image, the `condition` that was asked for,
    or `exact`; "" of one by an unknown method."""
    if mask is None or method not in METHODS:
        return ""
    # A method may be told to have its masks read.
    if condition is not None and filecmp.cmp(mask, condition, shallow=False):
        return "condition"
    return "exact" if METHODS[method].mask == "exact" else "read"


def _sourced(frame: pd.DataFrame, own: bool) -> pd.DataFrame:
    """With licence and citation of published sources; `own`: the images are the user's."""
    facts = {source: None if own else provenance(source) for source in set(frame["source"])}
    frame["origin"] = REAL
    for column in ("licence", "citation"):
        words = {name: getattr(fact, column) if fact else "" for name, fact in facts.items()}
        frame[column] = frame["source"].map(words)
    frame["mask_source"] = ["reference" if mask else "" for mask in frame["mask"]]
    return frame


def _check_files(row: dict[str, Any]) -> None:
    # A link in another's set may lead to any file, and an export is made to be passed on.
    check_kind(row["image"])
    with Image.open(row["image"]) as opened:
        found = (opened.format, opened.mode, opened.width, opened.height)
    if found != (expected := ("PNG", "RGB", row["width"], row["height"])):
        raise ValueError(
            f"{row['image']}: found format, mode, width and height {found}, expected {expected} as "
            "its table says and the stages write it; make the set again"
        )
    if row["sha256"] and sha256_file(row["image"]) != row["sha256"]:
        raise ValueError(
            f"{row['image']}: found another file than its table's sha256 says; make the set again"
        )
    for path in (row["mask"], row["condition"]):
        if path is not None:
            read_mask(path, (row["height"], row["width"]))


def write_tables(sets: Sets, out: Path) -> None:
    """Write `images.csv`, one row an image that is there, and `real_ids.csv` of the named ones."""
    columns = [column for column in COLUMNS if column in sets.images]
    write_csv(out / "images.csv", sets.images[columns])
    if len(sets.named):
        write_csv(out / "real_ids.csv", sets.named[list(LISTED)])


def place_images(images: pd.DataFrame, names: list[str], out: Path) -> None:
    """Put the image file of each row under its name below `out`."""
    for path, name in zip(images["image"], names, strict=True):
        place_file(path, out / name)


def attribution(images: pd.DataFrame) -> str:
    """The sources of real images, with numbers, licences and citations, as Markdown."""
    lines = ["# Attribution", "", "The real images of this export, by source.", ""]
    for source, rows in images[images["origin"] == REAL].groupby("source"):
        first = rows.iloc[0]
        lines += [
            f"## {html.escape(str(source).replace('`', ''))}",
            "",
            f"- Images: {len(rows)}, cropped, padded or scaled to the run's size",
            f"- Licence: {first['licence'] or 'not known; ask the owner of the images'}",
            f"- Citation: {first['citation'] or 'not known; ask the owner of the images'}",
            "",
        ]
    return "\n".join(lines)
