"""Measuring the attributes of many images, over processes."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from didgen.captions.attributes import Attributes

# Fewer images than this are done sooner in one process than a pool takes to start.
POOL_FROM = 100


class Job(NamedTuple):
    """An image of a manifest."""

    id: str
    image: Path
    mask: Path | None
    label: str | None


def jobs(manifest: Path) -> list[Job]:
    """The images of a manifest, in its order. Raises: `ManifestError`."""
    from didgen.data.manifest import read_manifest, resolve

    frame = read_manifest(manifest)
    images, masks = resolve(manifest, frame["image"]), resolve(manifest, frame["mask"])
    labels = [label or None for label in frame["label"]]
    return [Job(*fields) for fields in zip(frame["id"], images, masks, labels, strict=True)]


def measure_all(items: list[Job], workers: int | None) -> list[dict[str, str]]:
    """One row an image, in order: id, mask_source and every attribute.

    workers: processes; None: one for each core. Raises: as `measure_file`.
    """
    from didgen.runtime.progress import track

    workers = min(workers or len(os.sched_getaffinity(0)), 1 + len(items) // POOL_FROM)
    return list(track(_rows(items, workers), total=len(items), label="measured"))


def _rows(items: list[Job], workers: int) -> Iterator[dict[str, str]]:
    """One row an image, in order. A pool is spawned: forking a threaded process may lock up."""
    if workers == 1:
        yield from map(measure_file, items)
        return
    import concurrent.futures
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
        try:
            yield from pool.map(measure_file, items, chunksize=8)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def measure_file(job: Job) -> dict[str, str]:
    """The measured row of one image: id, mask_source and every attribute.

    Raises: `ImageError`, `MeasurementError` naming the image.
    """
    from didgen.captions.measure import MeasurementError, measure
    from didgen.data.images import read_image, read_mask

    image = read_image(job.image)
    mask = read_mask(job.mask, image.shape[:2]) if job.mask is not None else None
    try:
        measured = measure(image, mask, job.label)
    except MeasurementError as error:
        raise MeasurementError(f"{job.image}: {error}") from error
    return {
        "id": job.id,
        "mask_source": measured.mask_source,
        **attribute_columns(measured.attributes),
    }


def attribute_columns(attributes: "Attributes") -> dict[str, str]:
    """Attributes as columns of a table: lists joined by "; ", "" for what is not known."""
    return {
        name: "; ".join(value) if isinstance(value, tuple) else (value or "")
        for name, value in attributes.model_dump().items()
    }
