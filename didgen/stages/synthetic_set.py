"""What the stages `images` and `pairs` share: requests to a folder of samples that resumes."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from didgen.synthesis.protocol import Request, Sample

LOGGER = logging.getLogger(__name__)

# Part of a set's key: rows of an earlier layout are not continued.
ROWS = "rows with area, border_contact and pale_outside"


def synthesize_to_folder(
    requests: Sequence["Request"], config: Any, options: Mapping[str, Any]
) -> None:
    """Make every request's sample with the method `config.method` and write the set.

    Samples that an interrupted run with the same settings left behind are kept, not made again.
    Failed samples are counted, listed in `failed.csv` and never enter `metadata.csv`.
    """
    import pandas as pd

    from didgen.backbone.handle import Backbone
    from didgen.backbone.precision import default_device
    from didgen.data.files import write_csv, write_text
    from didgen.data.manifest import write_manifest
    from didgen.data.progress import track
    from didgen.synthesis.didgen.layouts import check_layouts, log_doubts
    from didgen.synthesis.protocol import load_method

    backbone = Backbone.load(config.backbone, device=default_device())
    # All of them now: a mask that cannot be used should not end the run hours later.
    log_doubts(check_layouts(requests, backbone.image_size))
    checkpoint = backbone.checksum()[:16]
    parts = _open_parts(requests, config, checkpoint)
    todo = [request for request in requests if not _is_done(request, parts)]
    if len(todo) < len(requests):
        LOGGER.info("%d of %d samples are there already", len(requests) - len(todo), len(requests))
    synthesizer = load_method(config.method)(backbone, **options)
    batches = [todo[i : i + config.batch_size] for i in range(0, len(todo), config.batch_size)]
    for batch in track(batches, label=f"synthesize (batches of {config.batch_size})"):
        # Kernels are chosen by shape, so a short batch could round differently: every batch is
        # full, and an image has the same bytes in whatever shard and place it is made.
        filled = [*batch, *[batch[-1]] * (config.batch_size - len(batch))]
        for sample in synthesizer.synthesize(filled)[: len(batch)]:
            _write_sample(sample, config, checkpoint, parts)
    rows = [
        pd.read_csv(parts / f"{request.id}.csv", dtype=str, keep_default_na=False)
        for request in requests
    ]
    frame = pd.concat(rows, ignore_index=True) if rows else _empty_set()
    failed = frame[frame["failure"] != ""]
    if len(failed):
        LOGGER.warning("%d of %d samples failed; see failed.csv", len(failed), len(frame))
    write_csv(config.out / "failed.csv", failed[["id", "seed", "failure"]])
    good = frame[frame["failure"] == ""].drop(columns="failure")
    if len(good):
        write_manifest(good, config.out / "metadata.csv")
    else:
        write_csv(config.out / "metadata.csv", good)
    write_text(config.out / "config.json", config.model_dump_json(indent=2) + "\n")


def _open_parts(requests: Sequence["Request"], config: Any, checkpoint: str) -> Path:
    """The folder of one row file a sample; a set made from anything else is cleared first.

    Its key covers settings, checkpoint, versions and the requests themselves, masks included.
    """
    import hashlib
    import shutil

    import diffusers

    import didgen
    from didgen.data.files import write_text

    settings = config.model_dump_json(exclude={"out", "shard", "batch_size"})
    versions = f"{didgen.__version__}/{diffusers.__version__}"
    digest = hashlib.sha256(f"{settings}/{checkpoint}/{versions}/{ROWS}".encode())
    for request in requests:
        digest.update(f"{request.id}\0{request.prompt}\0{request.seed}\0".encode())
        digest.update(b"" if request.mask is None else request.mask.tobytes())
    key = digest.hexdigest()[:16]
    marker = config.out / ".parts" / "key"
    if marker.is_file() and marker.read_text() != key:
        LOGGER.info("settings, inputs or checkpoint have changed: samples are made afresh")
        for name in (".parts", "images", "masks", "conditions"):
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


def _write_sample(sample: "Sample", config: Any, checkpoint: str, parts: Path) -> None:
    import pandas as pd

    from didgen.data.files import sha256_file, write_csv, write_png
    from didgen.metrics.masks import area_fraction, border_contact, pale_outside
    from didgen.metrics.segmentation import iou

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
