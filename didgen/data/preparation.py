"""From records to square images and masks on disk: each photograph is decoded once, by any core."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from didgen.data.files import sha256_file, write_png
from didgen.data.images import Fit, ImageError
from didgen.data.progress import track
from didgen.data.sources.records import Record, SourceError

if TYPE_CHECKING:
    import pandas as pd

    from didgen.data.fingerprints import Fingerprint

# Records a worker gets at once, and how many such lots wait for it: enough that none idles, few
# enough that what is done but not yet taken stays small.
LOT = 8
WAITING = 4
# Starting a process takes about as long as preparing so many images.
WORTH_A_PROCESS = 64
SHOWN_FAILURES = 20


@dataclass(frozen=True)
class Plan:
    """What is made of every record.

    out: folder that gets images/ and masks/; size: side in px; fit: crop, pad or squash;
    hair_removal: whether dark hair is removed first; fingerprints: whether to take what
    near-duplicates are found by (exact copies are found in any case).
    """

    out: Path
    size: int
    fit: Fit = "crop"
    hair_removal: bool = False
    fingerprints: bool = True


@dataclass(frozen=True)
class Prepared:
    """One image, written. row: its columns of the manifest; shape: (H, W) of its file; changes:
    what decoding changed, in words; digest: SHA-256 of the pixels as decoded.
    """

    row: dict[str, Any]
    shape: tuple[int, int]
    changes: tuple[str, ...]
    digest: bytes
    mask_area: float | None
    fingerprint: "Fingerprint | None"


def prepare_images(
    records: Sequence[Record], plan: Plan, workers: int | None = None
) -> list[Prepared]:
    """Decode, fit and write all images and masks, in parallel over the cores this process may use.

    The result keeps the order of the records and does not depend on the number of workers. Memory
    holds one photograph a worker, and about 10 KB an image where fingerprints are taken.
    Raises: `SourceError` that lists the images that cannot be used, with their count.
    """
    done, failures = [], []
    workers = workers or len(os.sched_getaffinity(0))
    for result in track(_results(records, plan, workers), total=len(records), label="prepare"):
        (failures if isinstance(result, str) else done).append(result)
    if failures:
        more = len(failures) - SHOWN_FAILURES
        rest = f"\n  and {more} more" if more > 0 else ""
        raise SourceError(
            f"{len(failures)} of {len(records)} images cannot be used:\n  "
            + "\n  ".join(failures[:SHOWN_FAILURES])
            + rest
        )
    return done


def _results(records: Sequence[Record], plan: Plan, workers: int) -> Iterator["Prepared | str"]:
    """What becomes of each record, in order, with only a few lots under way at a time."""
    lots = (records[start : start + LOT] for start in range(0, len(records), LOT))
    work = partial(_prepare_lot, plan=plan)
    workers = min(workers, 1 + len(records) // WORTH_A_PROCESS)
    if workers == 1:
        for lot in lots:
            yield from work(lot)
        return
    # A forked worker could inherit held locks of threaded libraries; spawned ones start clean.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        pending = [pool.submit(work, lot) for lot in islice(lots, WAITING * workers)]
        try:
            while pending:
                yield from pending.pop(0).result()
                pending += [pool.submit(work, lot) for lot in islice(lots, 1)]
        finally:
            for future in pending:
                future.cancel()


def _prepare_lot(records: Sequence[Record], plan: Plan) -> list["Prepared | str"]:
    return [prepare_one(record, plan) for record in records]


def prepare_one(record: Record, plan: Plan) -> "Prepared | str":
    """Decode, fit and write one image and its mask; the fault in words where it cannot be used."""
    from didgen.data.fingerprints import fingerprint, pixel_digest

    try:
        photograph = record.pixels.read(plan.size)
        decoded = photograph.image
        if plan.hair_removal:
            from didgen.data.hair import remove_hair

            photograph = replace(photograph, image=remove_hair(decoded))
        image, mask = photograph.fitted(plan.size, plan.fit, record.pixels.name)
    except (ImageError, SourceError) as error:
        return f"{record.id}: {error}"
    found = fingerprint(decoded) if plan.fingerprints else None
    name = f"images/{record.id}.png"
    write_png(plan.out / name, image)
    mask_name = ""
    if mask is not None:
        mask_name = f"masks/{record.id}.png"
        write_png(plan.out / mask_name, mask)
    row = {
        "id": record.id,
        "image": name,
        "mask": mask_name,
        "label": record.label,
        "split": record.split,
        "lesion_id": record.lesion_id,
        "patient_id": record.patient_id,
        "source": record.source,
        "width": plan.size,
        "height": plan.size,
        "sha256": sha256_file(plan.out / name),
        "original_width": photograph.shape[1],
        "original_height": photograph.shape[0],
    }
    area = None if mask is None else round(float(np.mean(mask)), 6)
    digest = found.digest if found else pixel_digest(decoded)
    return Prepared(row, photograph.shape, photograph.changes, digest, area, found)


def as_table(prepared: Sequence[Prepared]) -> "pd.DataFrame":
    """The rows of the manifest, in order."""
    import pandas as pd

    return pd.DataFrame([item.row for item in prepared])
