"""What the stages `images` and `pairs` share: requests to a folder of samples that resumes."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import torch

import didgen
from didgen.data.manifest import COLUMNS, SYNTHETIC_COLUMNS, write_manifest
from didgen.methods.protocol import Request, Sample, Synthesizer, load_method, shard_of
from didgen.metrics.masks import area_fraction, border_contact, pale_outside
from didgen.metrics.segmentation import iou
from didgen.runtime.batch_processes import memory_allows, process_count, share_out
from didgen.runtime.files import sha256_file, write_csv, write_png, write_text
from didgen.runtime.memory import explain_no_memory
from didgen.runtime.outputs import output_folder, paths_read
from didgen.runtime.precision import default_device
from didgen.runtime.progress import track
from didgen.runtime.reproducible import reproducible
from didgen.settings.images import Config as ImageConfig
from didgen.settings.methods import METHODS
from didgen.settings.pairs import AnyConfig as PairConfig

LOGGER = logging.getLogger(__name__)
Config = ImageConfig | PairConfig

# Part of a set's key: rows of an earlier layout are not continued.
ROWS = "rows with area, border_contact and pale_outside; fixed batches, one thread"
PARTS = ".parts"
# Passes through a network for one image that take as long as the start of a process, with a small
# network.
WORTH = 200
NEEDS_LESS = (
    "What needs less, in the section images or pairs: a smaller batch_size (another one may change "
    "the last bits of an image), precision: bfloat16; on a processor, fewer threads for the rule, "
    "each of which is a process with weights of its own"
)


def synthesize_to_folder(stage: str, requests: Sequence[Request], config: Config) -> None:
    """Make this shard's samples with the method `config.method` and write the set.

    `requests` are those of all shards. They fall into batches by their order alone, and shards
    take whole batches: an image is always made in the same place beside the same others, so that
    its bytes depend on seed and settings, not on shards, processes or what was made before.
    Samples that an interrupted run with the same settings left behind are kept, but a batch of
    which one is missing is made anew. Failed samples are counted, listed in `failed.csv` and never
    enter `metadata.csv`.

    Raises: `ValueError` for a model or requests that the method cannot use, `OutOfMemory`; finished
    samples are kept.
    """
    numbers = shard_of(fixed_batches(len(requests), config.batch_size), config.shard)
    batches = [[requests[number] for number in batch] for batch in numbers]
    chosen = [request for batch in batches for request in batch]
    LOGGER.info("%d samples, shard %s of %d", len(chosen), config.shard, len(requests))
    device = default_device() if METHODS[config.method].network else torch.device("cpu")
    with reproducible(device):
        synthesizer = load_method(config.method).load(config.model, config, str(device))
        # All of them now: a mask that cannot be used should not end the run hours later.
        synthesizer.check(chosen)
        key = _key(chosen, config, f"{synthesizer.checkpoint}/{synthesizer.version}/{device.type}")
        with output_folder(config.out, stage, paths_read(config), key) as out:
            todo = [batch for batch in batches if not all(_is_done(each, out) for each in batch)]
            left = sum(map(len, todo))
            if left < len(chosen):
                LOGGER.info("%d of %d samples are there already", len(chosen) - left, len(chosen))
            processes = _processes(config, synthesizer, todo) if device.type == "cpu" else 1
            make = _maker(synthesizer, config, out, todo)
            label = f"synthesize (batches of {config.batch_size}, {processes} processes)"
            done = share_out(len(todo), processes, make, _load_maker, config, out, todo)
            for _ in track(done, len(todo), label=label):
                pass
            _write_tables(stage, chosen, config, out)


def fixed_batches(count: int, size: int) -> list[range]:
    """The numbers 0 to `count` - 1 in batches of `size`, the last of them perhaps shorter."""
    return [range(first, min(first + size, count)) for first in range(0, count, size)]


def _processes(config: Config, synthesizer: Synthesizer, todo: Sequence[Sequence[Request]]) -> int:
    """How many processes sample: as many as allowed, useful and within the memory."""
    work = sum(map(len, todo)) * synthesizer.passes
    count = process_count(config.workers, len(todo), work, WORTH)
    given = None if config.memory_mb is None else config.memory_mb / 1e3
    fitting = min(count, memory_allows(synthesizer.memory_gb, given))
    if fitting < count:
        LOGGER.info("%d of %d processes: memory allows no more", fitting, count)
    return fitting


def _maker(
    synthesizer: Synthesizer, config: Config, out: Path, batches: Sequence[Sequence[Request]]
) -> Callable[[int], None]:
    """A function that makes the n-th of the batches and writes what is missing of it."""

    def make(number: int) -> None:
        batch = batches[number]
        # Kernels are chosen by shape, so a short batch could round differently: all are full.
        filled = [*batch, *[batch[-1]] * (config.batch_size - len(batch))]
        with explain_no_memory(NEEDS_LESS):
            samples = synthesizer.synthesize(filled)
        for sample in samples[: len(batch)]:
            if not _is_done(sample.request, out):
                _write_sample(sample, config, synthesizer.checkpoint, out)

    return make


def _load_maker(
    config: Config, out: Path, batches: Sequence[Sequence[Request]]
) -> Callable[[int], None]:
    """`_maker` in a process of its own, which loads a model of its own."""
    synthesizer = load_method(config.method).load(config.model, config, "cpu")
    return _maker(synthesizer, config, out, batches)


def _write_tables(stage: str, requests: Sequence[Request], config: Config, out: Path) -> None:
    """Write `failed.csv`, `config.json` and `metadata.csv`, whose column `set` is the stage."""
    rows = [
        pd.read_csv(out / PARTS / f"{request.id}.csv", dtype=str, keep_default_na=False)
        for request in requests
    ]
    frame = pd.concat(rows, ignore_index=True).fillna("") if rows else _empty_set()
    failed = frame[frame["failure"] != ""]
    if len(failed):
        LOGGER.warning("%d of %d samples failed; see failed.csv", len(failed), len(frame))
    good = frame[frame["failure"] == ""].drop(columns="failure").assign(set=stage)
    write_csv(out / "failed.csv", failed[["id", "seed", "failure"]])
    settings = config.model_dump_json(indent=2, exclude={"workers", "memory_mb"})
    write_text(out / "config.json", settings + "\n")
    if len(good):
        write_manifest(good, out / "metadata.csv")
    else:
        write_csv(out / "metadata.csv", good)


def _key(requests: Sequence[Request], config: Config, model: str) -> str:
    """What a set is made from: unfinished samples of the same key are continued.

    It covers settings, model, versions, the kind of device and the requests themselves, masks
    included.
    """
    settings = config.model_dump_json(exclude={"out", "shard", "workers", "memory_mb"})
    digest = hashlib.sha256(f"{settings}/{model}/{didgen.__version__}/{ROWS}".encode())
    for request in requests:
        digest.update(f"{request.id}\0{request.caption}\0{request.seed}\0".encode())
        digest.update(b"" if request.mask is None else request.mask.tobytes())
    return digest.hexdigest()[:16]


def _is_done(request: Request, out: Path) -> bool:
    """Whether the sample's row is there and every file that it names."""
    row = out / PARTS / f"{request.id}.csv"
    if not row.is_file():
        return False
    made = pd.read_csv(row, dtype=str, keep_default_na=False).iloc[0]
    if made["failure"]:
        return True
    names = [made.get(column, "") for column in ("image", "mask", "condition")]
    return all((out / name).is_file() for name in names if name)


def _write_sample(sample: Sample, config: Config, checkpoint: str, out: Path) -> None:
    request = sample.request
    row = {
        "id": request.id,
        "image": f"images/{request.id}.png",
        "mask": "",
        "label": request.label,
        "split": "train",
        "lesion_id": request.id,
        "patient_id": "",
        "source": "synthetic",
        "width": sample.image.shape[1],
        "height": sample.image.shape[0],
        "sha256": "",
        "method": config.method,
        "seed": request.seed,
        "caption": request.caption,
        "parent_ids": ";".join((*request.parent_ids, *sample.further_parents)),
        "checkpoint": checkpoint,
        "failure": sample.failure,
        **sample.scores,
    }
    if sample.mask is not None and request.mask is not None:
        row["layout_iou"] = round(float(iou(sample.mask, request.mask)), 4)
    if sample.mask is not None:
        row["area"] = round(area_fraction(sample.mask), 4)
        row["border_contact"] = round(border_contact(sample.mask), 4)
        row["pale_outside"] = round(pale_outside(sample.image, sample.mask), 4)
    if not sample.failure:
        write_png(out / row["image"], sample.image)
        row["sha256"] = sha256_file(out / row["image"])
        if sample.mask is not None:
            row["mask"] = f"masks/{request.id}.png"
            write_png(out / row["mask"], sample.mask)
        if request.mask is not None:
            row["condition"] = f"conditions/{request.id}.png"
            write_png(out / row["condition"], request.mask)
    # The row comes last: its presence says that the sample's files are whole.
    write_csv(out / PARTS / f"{request.id}.csv", pd.DataFrame([row]))


def _empty_set() -> pd.DataFrame:
    return pd.DataFrame(columns=[*COLUMNS, *SYNTHETIC_COLUMNS, "failure"])
