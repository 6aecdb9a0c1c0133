"""Write one clinical sentence an image, and the attributes that it says."""

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from didgen.data.settings import Section

if TYPE_CHECKING:
    import pandas as pd

LOGGER = logging.getLogger(__name__)
# Fewer images than this are done sooner in one process than a pool takes to start.
POOL_FROM = 100


class Settings(Section):
    """How captions are made."""

    captioner: Literal["measure"] = Field(
        "measure",
        description="`measure`: attributes computed from image and mask, no model; an image "
        "without a mask is segmented first",
    )
    workers: int | None = Field(
        None, ge=1, le=256, description="processes that measure; null: one for each core"
    )


class Config(Settings):
    """Settings and paths of the stage."""

    train: Path = Field(description="manifest of training images")
    val: Path = Field(description="manifest of validation images")
    test: Path = Field(description="manifest of test images")
    backbone: str = Field(
        description="`tiny`, a diffusers folder or a hub id: its tokenizer sets the length limit"
    )
    revision: str | None = Field(None, description="hub revision of the backbone; null: newest")
    out: Path = Field(description="folder to write: captions.csv, statistics.json")


def run(config: Config) -> None:
    """Write `captions.csv`, `statistics.json` and `config.json`; rows in the manifests' order.

    Raises: `ManifestError`, `ImageError`, `MeasurementError` (naming the image) or `BackboneError`
    for unusable input.
    """
    import pandas as pd

    from didgen.data.files import write_csv, write_json, write_text

    jobs = [job for name in ("train", "val", "test") for job in _jobs(getattr(config, name))]
    tokenizer = _tokenizer(config.backbone, config.revision)
    table = pd.DataFrame(_measure_all(jobs, config.workers))
    statistics = _statistics(table, tokenizer)
    LOGGER.info(
        "%d captions, at most %d of %d tokens, %d trimmed; masks: %s",
        len(table), statistics["tokens"]["max_tokens"], statistics["tokens"]["limit"],
        statistics["tokens"]["trimmed"], statistics["mask_source"],
    )  # fmt: skip
    write_json(config.out / "statistics.json", statistics)
    write_text(config.out / "config.json", config.model_dump_json(indent=2) + "\n")
    write_csv(config.out / "captions.csv", table)


def read_captions(path: Path, ids: Iterable[str]) -> "pd.Series":
    """The captions of the given images, indexed by id, in the given order.

    Raises: `ValueError` when the file is missing, lacks a column, repeats an id or lacks an image.
    """
    import pandas as pd

    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file; run the caption stage first")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if not {"id", "caption"} <= set(table.columns):
        raise ValueError(f"{path}: found columns {list(table.columns)}, expected id and caption")
    if not table["id"].is_unique:
        raise ValueError(f"{path}: an id stands twice; run the caption stage again")
    captions = table.set_index("id")["caption"]
    wanted = list(ids)
    absent = [name for name in wanted if name not in captions.index]
    if absent:
        raise ValueError(
            f"{path}: no caption for {len(absent)} of {len(wanted)} images "
            f"({', '.join(absent[:5])}{', ...' if len(absent) > 5 else ''}); run the caption stage "
            "again"
        )
    return captions[wanted]


Job = tuple[str, Path, Path | None, str | None]


def _jobs(manifest: Path) -> list[Job]:
    from didgen.data.manifest import read_manifest, resolve

    frame = read_manifest(manifest)
    images, masks = resolve(manifest, frame["image"]), resolve(manifest, frame["mask"])
    labels = [label or None for label in frame["label"]]
    return list(zip(frame["id"], images, masks, labels, strict=True))


def _tokenizer(backbone: str, revision: str | None) -> Any:
    """The backbone's tokenizer with the placeholder tokens, as prompts will meet it."""
    from transformers import AddedToken

    from didgen.backbone.loading import load_tokenizer
    from didgen.backbone.placeholder import PLACEHOLDERS

    tokenizer = load_tokenizer(backbone, revision)
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in PLACEHOLDERS])
    return tokenizer


def _measure_all(jobs: list[Job], workers: int | None) -> list[dict[str, str]]:
    from didgen.data.progress import track

    workers = min(workers or len(os.sched_getaffinity(0)), 1 + len(jobs) // POOL_FROM)
    return list(track(_rows(jobs, workers), total=len(jobs), label="captions"))


def _rows(jobs: list[Job], workers: int) -> Iterator[dict[str, str]]:
    """One row an image, in order. A pool is spawned: forking a threaded process may lock up."""
    if workers == 1:
        yield from map(measure_file, jobs)
        return
    import concurrent.futures
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
        try:
            yield from pool.map(measure_file, jobs, chunksize=8)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def measure_file(job: Job) -> dict[str, str]:
    """The row of captions.csv for one image: id, caption, mask_source and every attribute."""
    from didgen.captions.measure import MeasurementError, measure
    from didgen.captions.sentence import write_sentence
    from didgen.data.images import read_image, read_mask

    name, image_path, mask_path, label = job
    image = read_image(image_path)
    mask = read_mask(mask_path, image.shape[:2]) if mask_path is not None else None
    try:
        measured = measure(image, mask, label)
    except MeasurementError as error:
        raise MeasurementError(f"{image_path}: {error}") from error
    row = {
        "id": name,
        "caption": write_sentence(measured.attributes),
        "mask_source": measured.mask_source,
    }
    for field, value in measured.attributes.model_dump().items():
        row[field] = "; ".join(value) if isinstance(value, tuple) else (value or "")
    return row


def _statistics(table: "pd.DataFrame", tokenizer: Any) -> dict[str, Any]:
    """Counts of every attribute's values and of mask sources, and the prompts' token counts."""
    from dataclasses import asdict

    from didgen.captions.attributes import Attributes
    from didgen.captions.prompts import prompt_statistics

    values = {
        field: table[field].str.split("; ").explode().replace("", "not stated").value_counts()
        for field in Attributes.model_fields
    }
    return {
        "count": len(table),
        "distinct_captions": int(table["caption"].nunique()),
        "mask_source": table["mask_source"].value_counts().to_dict(),
        "tokens": asdict(prompt_statistics(table["caption"], tokenizer)),
        "values": {field: counts.to_dict() for field, counts in values.items()},
    }
