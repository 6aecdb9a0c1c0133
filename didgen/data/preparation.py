"""From records to square images and masks on disk: each photograph is decoded once, by any core."""

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from didgen.data.images import ImageError, pixel_digest
from didgen.data.sources.records import Record, SourceError
from didgen.runtime.files import sha256_file, write_png
from didgen.runtime.progress import track

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext

    import pandas as pd

    from didgen.data.fingerprints import Fingerprint
    from didgen.settings.data import Fit

LOGGER = logging.getLogger(__name__)
# Records a worker gets at once, and how many such lots wait for it: enough that none idles, few
# enough that what is done but not yet taken stays small.
LOT = 8
WAITING = 4
# Starting processes takes about as long as preparing so many images.
WORTH_A_PROCESS = 32
SHOWN_FAILURES = 20
LEAST_SIDE = 8  # px
# Loads OpenCV and SciPy, which only they need.
_FINGERPRINTS = "didgen.data.fingerprints"


@dataclass(frozen=True)
class PreparationPlan:
    """What is made of every record.

    out: folder that gets images/ and masks/; size: side in px; fit: crop, pad or squash;
    hair_removal: whether dark hair is removed first; fingerprints: whether to take what
    near-duplicates are found by (exact copies are found in any case); write: whether files are
    written, or images only identified.
    """

    out: Path
    size: int
    fit: "Fit"
    hair_removal: bool
    fingerprints: bool
    write: bool = True


@dataclass(frozen=True)
class Prepared:
    """One image, written. row: its columns of the manifest; shape: (H, W) of its file; changes:
    what decoding changed, in words; digest: SHA-256 of the pixels as decoded.
    """

    row: dict[str, Any]
    shape: tuple[int, int]
    changes: tuple[str, ...]
    digest: bytes
    fingerprint: "Fingerprint | None"
    mask_area: float | None


def prepare_images(
    records: Sequence[Record], plan: PreparationPlan, workers: int | None = None
) -> list[Prepared]:
    """Decode, fit and write all images and masks, in parallel over the cores this process may use.

    The result keeps the order of the records and does not depend on the number of workers. Memory
    holds one photograph a worker, and about 10 KB an image where fingerprints are taken.
    Raises: `SourceError` that lists the images that cannot be used, with their count;
    `ChildProcessError` when a worker is killed, as systems do that run out of memory.
    """
    done, failures = _sorted_out(records, plan, workers, "prepare")
    if failures:
        more = len(failures) - SHOWN_FAILURES
        rest = f"\n  and {more} more" if more > 0 else ""
        raise SourceError(
            f"{len(failures)} of {len(records)} images cannot be used:\n  "
            + "\n  ".join(failures[:SHOWN_FAILURES])
            + rest
        )
    # Once for all: flushing each would make the cores wait for the disk, and for each other.
    os.sync()
    return done


def identify_images(
    records: Sequence[Record], plan: PreparationPlan, workers: int | None = None
) -> list[Prepared]:
    """Decode images that are not prepared, to find out whom they are related to. Writes nothing.

    One that cannot be read is counted in the log, and not in the result. Rows hold the id alone.
    """
    if not records:
        return []
    bare = [
        # Those that have a mask are dataclasses.
        replace(record, pixels=replace(record.pixels, mask=None))  # type: ignore[type-var]
        if record.pixels.has_mask
        else record
        for record in records
    ]
    done, failures = _sorted_out(bare, replace(plan, write=False), workers, "compare")
    if failures:
        LOGGER.warning(
            "%d of %d images that are left out cannot be read, so nothing is known to be related "
            "to them by its look: %s%s",
            len(failures), len(records), "; ".join(failures[:3]), "; ..." * (len(failures) > 3),
        )  # fmt: skip
    return done


def _sorted_out(
    records: Sequence[Record], plan: PreparationPlan, workers: int | None, label: str
) -> tuple[list[Prepared], list[str]]:
    """What could be used, in order, and the faults of what could not."""
    done, failures = [], []
    workers = workers or len(os.sched_getaffinity(0))
    for result in track(_results(records, plan, workers), total=len(records), label=label):
        (failures if isinstance(result, str) else done).append(result)
    return done, failures


def _results(
    records: Sequence[Record], plan: PreparationPlan, workers: int
) -> Iterator["Prepared | str"]:
    """What becomes of each record, in order, with only a few lots under way at a time."""
    lots = (records[start : start + LOT] for start in range(0, len(records), LOT))
    work = partial(_prepare_lot, plan=plan)
    workers = min(workers, 1 + len(records) // WORTH_A_PROCESS)
    if workers == 1:
        for lot in lots:
            yield from work(lot)
        return
    done = 0
    with ProcessPoolExecutor(workers, mp_context=_context(plan)) as pool:
        pending = [pool.submit(work, lot) for lot in islice(lots, WAITING * workers)]
        try:
            while pending:
                results = pending.pop(0).result()
                yield from results
                done += len(results)
                pending += [pool.submit(work, lot) for lot in islice(lots, 1)]
        except BrokenProcessPool:
            raise ChildProcessError(
                f"a worker was killed after {done} of {len(records)} images, at or soon after "
                f"{records[done].id}; most often the memory is used up: give the job more, use "
                f"fewer than {workers} workers (--workers; --cores of the workflow), or scale down "
                "huge photographs"
            ) from None
        finally:
            for future in pending:
                future.cancel()


def _context(plan: PreparationPlan) -> "ForkServerContext":
    """How workers start: from a process that has imported what they need, once for all of them.

    Forked from this one, they could inherit held locks of threaded libraries.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__, *([_FINGERPRINTS] if plan.fingerprints else [])])
    return context


def _prepare_lot(records: Sequence[Record], plan: PreparationPlan) -> list["Prepared | str"]:
    return [prepare_one(record, plan) for record in records]


def prepare_one(record: Record, plan: PreparationPlan) -> "Prepared | str":
    """Decode, fit and write one image and its mask; the fault in words where it cannot be used."""
    try:
        photograph = record.pixels.read(plan.size)
        decoded = photograph.image
        if not plan.write:
            return Prepared(
                {"id": record.id}, photograph.shape, (), *_identity(decoded, plan), None
            )
        height, width = photograph.shape
        if min(height, width) < LEAST_SIDE:
            raise ImageError(
                f"{record.pixels.name}: found {width}x{height} px, expected at least {LEAST_SIDE} "
                "px a side, or there is nothing to learn from; replace the file or remove the row"
            )
        if plan.hair_removal:
            from didgen.data.hair import remove_hair

            photograph = replace(photograph, image=remove_hair(decoded))
        image, mask = photograph.fitted(plan.size, plan.fit, record.pixels.name)
    except (ImageError, SourceError) as error:
        return f"{record.id}: {error}"
    name = f"images/{record.id}.png"
    write_png(plan.out / name, image, flush=False)
    mask_name = ""
    if mask is not None:
        mask_name = f"masks/{record.id}.png"
        write_png(plan.out / mask_name, mask, flush=False)
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
    identity = _identity(decoded, plan)
    return Prepared(row, photograph.shape, photograph.changes, *identity, area)


def _identity(decoded: np.ndarray, plan: PreparationPlan) -> "tuple[bytes, Fingerprint | None]":
    """The digest of the pixels, and the fingerprint where the plan wants it."""
    if not plan.fingerprints:
        return pixel_digest(decoded), None
    from didgen.data.fingerprints import fingerprint

    own = fingerprint(decoded)
    return own.digest, own


def as_table(prepared: Sequence[Prepared]) -> "pd.DataFrame":
    """The rows of the manifest, in order."""
    import pandas as pd

    return pd.DataFrame([item.row for item in prepared])
