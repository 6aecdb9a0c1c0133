"""What the stages `images` and `pairs` share: requests to a folder of samples that resumes."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from didgen.settings.images import Config as ImageConfig
from didgen.settings.pairs import Config as PairConfig

if TYPE_CHECKING:
    import pandas as pd

    from didgen.backbone.handle import Backbone
    from didgen.methods.protocol import Request, Sample

LOGGER = logging.getLogger(__name__)
Config = ImageConfig | PairConfig

# Part of a set's key: rows of an earlier layout are not continued.
ROWS = "rows with area, border_contact and pale_outside; fixed batches, one thread"
FOLDERS = ("images", "masks", "conditions")
PARTS = ".parts"
# Sampling steps of one image that take as long as the start of a process, with a small backbone.
WORTH = 200
NEEDS_LESS = (
    "What needs less, in the section images or pairs: a smaller batch_size (another one may change "
    "the last bits of an image), precision: bfloat16; on a processor, fewer threads for the rule, "
    "each of which is a process with weights of its own"
)


def synthesize_to_folder(requests: Sequence["Request"], config: Config) -> None:
    """Make this shard's samples with the method `config.method` and write the set.

    `requests` are those of all shards. They fall into batches by their order alone, and shards
    take whole batches: an image is always made in the same place beside the same others, so that
    its bytes depend on seed and settings, not on shards, processes or what was made before.
    Samples that an interrupted run with the same settings left behind are kept, but a batch of
    which one is missing is made anew. Failed samples are counted, listed in `failed.csv` and never
    enter `metadata.csv`.

    Raises: `BackboneError`, `LayoutError`, `OutOfMemory`; finished samples are kept.
    """
    from didgen.backbone.handle import Backbone
    from didgen.methods.didgen.layouts import check_layouts, log_doubts
    from didgen.methods.protocol import shard_of
    from didgen.runtime.batch_processes import share_out
    from didgen.runtime.locks import sole_writer
    from didgen.runtime.precision import default_device
    from didgen.runtime.progress import track
    from didgen.runtime.reproducible import reproducible

    numbers = shard_of(fixed_batches(len(requests), config.batch_size), config.shard)
    batches = [[requests[number] for number in batch] for batch in numbers]
    chosen = [request for batch in batches for request in batch]
    LOGGER.info("%d samples, shard %s of %d", len(chosen), config.shard, len(requests))
    device = default_device()
    with reproducible(device), sole_writer(config.out):
        backbone = Backbone.load(config.backbone, device=device)
        # All of them now: a mask that cannot be used should not end the run hours later.
        log_doubts(check_layouts(chosen, backbone.image_size))
        checkpoint = backbone.checksum()[:16]
        parts = _open_parts(chosen, config, checkpoint, device.type)
        todo = [batch for batch in batches if not all(_is_done(each, parts) for each in batch)]
        left = sum(map(len, todo))
        if left < len(chosen):
            LOGGER.info("%d of %d samples are there already", len(chosen) - left, len(chosen))
        processes = _processes(config, backbone, todo) if device.type == "cpu" else 1
        make = _maker(backbone, config, checkpoint, todo)
        given = (_load_maker, config, checkpoint, todo)
        label = f"synthesize (batches of {config.batch_size}, {processes} processes)"
        for _ in track(share_out(len(todo), processes, make, *given), len(todo), label=label):
            pass
        _write_tables(chosen, config, parts)


def fixed_batches(count: int, size: int) -> list[range]:
    """The numbers 0 to `count` - 1 in batches of `size`, the last of them perhaps shorter."""
    return [range(first, min(first + size, count)) for first in range(0, count, size)]


def _processes(config: Config, backbone: "Backbone", todo: Sequence[Sequence["Request"]]) -> int:
    """How many processes sample: as many as allowed, useful and within the memory."""
    from didgen.runtime.batch_processes import memory_allows, process_count

    work = sum(map(len, todo)) * config.steps
    count = process_count(config.workers, len(todo), work, WORTH)
    weights = sum(p.numel() * p.element_size() for m in backbone.modules() for p in m.parameters())
    given = None if config.memory_mb is None else config.memory_mb / 1e3
    fitting = min(count, memory_allows(weights / 1e9, given))
    if fitting < count:
        LOGGER.info("%d of %d processes: memory allows no more", fitting, count)
    return fitting


def _maker(
    backbone: "Backbone",
    config: Config,
    checkpoint: str,
    batches: Sequence[Sequence["Request"]],
) -> Callable[[int], None]:
    """A function that makes the n-th of the batches and writes what is missing of it."""
    from didgen.methods.didgen.tuning import explain_no_memory
    from didgen.methods.protocol import load_method

    synthesizer = load_method(config.method)(backbone, config)
    parts = config.out / PARTS

    def make(number: int) -> None:
        batch = batches[number]
        # Kernels are chosen by shape, so a short batch could round differently: all are full.
        filled = [*batch, *[batch[-1]] * (config.batch_size - len(batch))]
        with explain_no_memory(NEEDS_LESS):
            samples = synthesizer.synthesize(filled)
        for sample in samples[: len(batch)]:
            if not _is_done(sample.request, parts):
                _write_sample(sample, config, checkpoint, parts)

    return make


def _load_maker(
    config: Config,
    checkpoint: str,
    batches: Sequence[Sequence["Request"]],
) -> Callable[[int], None]:
    """`_maker` in a process of its own, which loads a backbone of its own."""
    from didgen.backbone.handle import Backbone

    backbone = Backbone.load(config.backbone, device="cpu")
    return _maker(backbone, config, checkpoint, batches)


def _write_tables(requests: Sequence["Request"], config: Config, parts: Path) -> None:
    """Write `failed.csv`, `config.json` and last `metadata.csv`.

    What the table does not name is removed: files of earlier settings, or of killed writes.
    """
    import pandas as pd

    from didgen.data.manifest import write_manifest
    from didgen.runtime.files import remove_unlisted, write_csv, write_text
    from didgen.runtime.leftovers import remove_leftovers

    rows = [
        pd.read_csv(parts / f"{request.id}.csv", dtype=str, keep_default_na=False)
        for request in requests
    ]
    frame = pd.concat(rows, ignore_index=True).fillna("") if rows else _empty_set()
    failed = frame[frame["failure"] != ""]
    if len(failed):
        LOGGER.warning("%d of %d samples failed; see failed.csv", len(failed), len(frame))
    good = frame[frame["failure"] == ""].drop(columns="failure")
    listed = [name for name in ("image", "mask", "condition") if name in good]
    remove_unlisted(config.out, FOLDERS, filter(None, good[listed].to_numpy().ravel()))
    for folder in (config.out, parts):
        remove_leftovers(folder)
    write_csv(config.out / "failed.csv", failed[["id", "seed", "failure"]])
    settings = config.model_dump_json(indent=2, exclude={"workers", "memory_mb"})
    write_text(config.out / "config.json", settings + "\n")
    if len(good):
        write_manifest(good, config.out / "metadata.csv")
    else:
        write_csv(config.out / "metadata.csv", good)


def _open_parts(
    requests: Sequence["Request"], config: Config, checkpoint: str, device: str
) -> Path:
    """The folder of one row file a sample; a set made from anything else is cleared first.

    Its key covers settings, checkpoint, versions, the kind of device and the requests themselves,
    masks included.
    """
    import hashlib
    import shutil

    import diffusers
    import torch

    import didgen
    from didgen.runtime.files import write_text

    settings = config.model_dump_json(exclude={"out", "shard", "workers", "memory_mb"})
    versions = f"{didgen.__version__}/{diffusers.__version__}/{torch.__version__}/{device}"
    digest = hashlib.sha256(f"{settings}/{checkpoint}/{versions}/{ROWS}".encode())
    for request in requests:
        digest.update(f"{request.id}\0{request.prompt}\0{request.seed}\0".encode())
        digest.update(b"" if request.mask is None else request.mask.tobytes())
    key = digest.hexdigest()[:16]
    marker = config.out / PARTS / "key"
    if marker.is_file() and marker.read_text() != key:
        LOGGER.info("settings, inputs or checkpoint have changed: samples are made afresh")
        # The key goes last: killed half way, this is done again.
        for name in (*FOLDERS, PARTS):
            shutil.rmtree(config.out / name, ignore_errors=True)
    write_text(marker, key)
    return marker.parent


def _is_done(request: "Request", parts: Path) -> bool:
    """Whether the sample's row is there and every file that it names."""
    import pandas as pd

    row = parts / f"{request.id}.csv"
    if not row.is_file():
        return False
    made = pd.read_csv(row, dtype=str, keep_default_na=False).iloc[0]
    if made["failure"]:
        return True
    names = [made.get(column, "") for column in ("image", "mask", "condition")]
    return all((parts.parent / name).is_file() for name in names if name)


def _write_sample(sample: "Sample", config: Config, checkpoint: str, parts: Path) -> None:
    import pandas as pd

    from didgen.metrics.masks import area_fraction, border_contact, pale_outside
    from didgen.metrics.segmentation import iou
    from didgen.runtime.files import sha256_file, write_csv, write_png

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
        "parent_ids": ";".join(request.parent_ids),
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
        write_png(config.out / row["image"], sample.image)
        row["sha256"] = sha256_file(config.out / row["image"])
        if sample.mask is not None:
            row["mask"] = f"masks/{request.id}.png"
            write_png(config.out / row["mask"], sample.mask)
        if request.mask is not None:
            row["condition"] = f"conditions/{request.id}.png"
            write_png(config.out / row["condition"], request.mask)
    # The row comes last: its presence says that the sample's files are whole.
    write_csv(parts / f"{request.id}.csv", pd.DataFrame([row]))


def _empty_set() -> "pd.DataFrame":
    import pandas as pd

    from didgen.data.manifest import COLUMNS, SYNTHETIC_COLUMNS

    return pd.DataFrame(columns=[*COLUMNS, *SYNTHETIC_COLUMNS, "failure"])
