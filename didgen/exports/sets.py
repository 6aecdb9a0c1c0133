"""The images of an export, read from a run's folders and checked before anything is written."""

import filecmp
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from didgen.data.images import check_kind, read_mask
from didgen.data.manifest import (
    SPLITS,
    ManifestError,
    check_groups,
    check_identities,
    read_manifest,
    resolve,
)
from didgen.data.sources.catalog import provenance
from didgen.runtime.files import place_file, write_csv
from didgen.settings.methods import METHODS
from didgen.settings.sets import OWN

SYNTHETIC, REAL = "synthetic", "real"
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


def read_sets(run_dir: Path, name: str, real: bool) -> Sets:
    """The synthetic set `name` of a run, and its real images, to be written if `real`.

    Raises: `ManifestError` for a damaged table, an id or lesion that stands twice, a synthetic
    image outside train; `ImageError` or `ValueError` for an image that is no 8-bit RGB PNG of
    its size, or a damaged mask.
    """
    folder = run_dir if name == OWN else run_dir / "methods" / name
    table = folder / "augment" / "metadata.csv"
    synthetic = _located(read_manifest(table), table)
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
    known = _sourced(pd.concat(frames, ignore_index=True))
    everything = pd.concat([synthetic, known], ignore_index=True)
    everything = everything.fillna({"lesion_id": "", "patient_id": ""})
    check_identities(everything, f"{table} and {tables[0].parent}")
    check_groups(everything, f"{table} and {tables[0].parent}")
    images = everything if real else synthetic
    images = images.reset_index(drop=True).astype({"mask": object, "condition": object})
    images = images.where(images.notna(), None)
    for row in images.to_dict("records"):
        _check_files(row)
    return Sets(images, known.iloc[:0] if real else known)


def _located(frame: pd.DataFrame, table: Path) -> pd.DataFrame:
    """With absolute paths in place of names."""
    places = {
        column: pd.Series(resolve(table, frame.get(column, [""] * len(frame))), dtype=object)
        for column in ("image", "mask", "condition")
    }
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


def _sourced(frame: pd.DataFrame) -> pd.DataFrame:
    facts = {source: provenance(source) for source in set(frame["source"])}
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
            f"## {source}",
            "",
            f"- Images: {len(rows)}, cropped, padded or scaled to the run's size",
            f"- Licence: {first['licence'] or 'not known; ask the owner of the images'}",
            f"- Citation: {first['citation'] or 'not known; ask the owner of the images'}",
            "",
        ]
    return "\n".join(lines)
