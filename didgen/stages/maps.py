"""Measure how well the attention maps of `<lesion>` and `<skin>` find held-out real lesions."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from didgen.attention.annotation import otsu
from didgen.attention.layers import CROSS_SIDE
from didgen.attention.maps import minmax, upsample
from didgen.attention.panels import attention_panel
from didgen.backbone.handle import Backbone
from didgen.backbone.prompts import PREFIX, build_prompt
from didgen.data.images import read_image, read_mask
from didgen.data.manifest import read_manifest, resolve
from didgen.methods.didgen.cache import check_sizes
from didgen.methods.didgen.readout import read_out
from didgen.methods.protocol import derive_seed
from didgen.metrics.segmentation import iou
from didgen.runtime.files import write_json, write_png, write_text
from didgen.runtime.outputs import output_folder, paths_read
from didgen.runtime.precision import default_device
from didgen.settings.maps import Config
from didgen.stages.caption import read_captions
from didgen.stages.mask_truth import draw_extremes, mask_scores, truth_summary

LOGGER = logging.getLogger(__name__)


def run(config: Config) -> None:
    """Write `maps.json` (each image's map and mask against the true mask), panels, `config.json`.

    Each image is encoded, a little noise is added, and one pass gives its maps. A map is scaled to
    [0, 1], brought to the image's size and cut by Otsu's threshold; the annotated mask is that of
    Eq. 7, as the pairs have it.

    Raises: `BackboneError` for an unusable backbone, `ValueError` for images of another size.
    """
    with output_folder(config.out, "maps", paths_read(config)) as out:
        _run(config, out)


def _run(config: Config, out: Path) -> None:
    frame = _draw(config)
    if frame is None:
        result = {
            "resolution": CROSS_SIDE,
            "n": 0,
            "images": [],
            "note": "no held-out image has a mask",
        }
    else:
        backbone = Backbone.load(config.backbone, device=default_device())
        check_sizes(frame["image"], backbone.image_size)
        drawn = set(frame["id"].iloc[: config.panels])
        rows, parts = [], []
        for start in range(0, len(frame), config.batch_size):
            part = frame.iloc[start : start + config.batch_size]
            measured, annotated = _measure(part, drawn, backbone, config, out)
            rows += measured
            parts.append(annotated)
        masks = np.concatenate(parts)
        scores = np.array([row["lesion_iou"] for row in rows])
        annotated = np.array([row["annotated_iou"] for row in rows])
        result = {
            "resolution": CROSS_SIDE,
            "timestep": config.timestep,
            "prompt": PREFIX if config.prompt == "prefix" else "each image's caption",
            "n": len(rows),
            "lesion_iou_mean": float(scores.mean()),
            "lesion_iou_std": float(scores.std(ddof=1)) if len(rows) > 1 else 0.0,
            "annotated_iou_mean": float(annotated.mean()),
            "truth": truth_summary(rows, *masks.shape[1:]),
            "truth_panels": draw_extremes(rows, frame, masks, config.truth_panels, out),
            "images": rows,
        }
        LOGGER.info(
            "<lesion> maps of %d held-out images: mean IoU %.3f; annotated masks (Eq. 7): %.3f",
            len(rows), scores.mean(), annotated.mean(),
        )  # fmt: skip
    write_json(out / "maps.json", result)
    write_text(out / "config.json", config.model_dump_json(indent=2) + "\n")


def _draw(config: Config) -> pd.DataFrame | None:
    frame = read_manifest(config.manifest)
    frame = frame[frame["mask"] != ""]
    if frame.empty:
        return None
    frame = frame.assign(
        image=resolve(config.manifest, frame["image"]), mask=resolve(config.manifest, frame["mask"])
    )
    return frame.sample(min(config.images, len(frame)), random_state=config.seed)


def _measure(
    frame: pd.DataFrame, drawn: set[str], backbone: Backbone, config: Config, out: Path
) -> tuple[list[dict], np.ndarray]:
    """The rows of a batch, and its annotated masks, bool (B, H, W)."""
    images = np.stack([read_image(path) for path in frame["image"]])
    masks = np.stack([read_mask(path) for path in frame["mask"]])
    names = frame["id"].tolist()
    maps, annotation = read_out(
        backbone,
        images,
        _prompts(names, backbone, config),
        [derive_seed(config.seed, "maps", name) for name in names],
        config.timestep,
        config.pairs,
    )
    annotated = annotation.masks.cpu().numpy()
    large = minmax(upsample(maps, images.shape[1:3]))
    thresholds, _ = otsu(large[:, 0])
    predicted = (large[:, 0] >= thresholds[:, None, None]).numpy()
    rows = []
    for index, name in enumerate(frame["id"]):
        panel = f"panels/{name}.png" if name in drawn else ""
        if panel:
            lesion, skin = large[index].numpy()
            picture = attention_panel(images[index], lesion, skin, masks[index])
            write_png(out / panel, picture)
        rows.append(
            {
                "id": name,
                "lesion_iou": float(iou(predicted[index], masks[index])),
                **mask_scores(annotated[index], masks[index]),
                "contrast": float(annotation.contrast[index]),
                "failed": bool(annotation.failed[index]),
                "panel": panel,
            }
        )
    return rows, annotated


def _prompts(names: list[str], backbone: Backbone, config: Config) -> list[str]:
    if config.prompt == "prefix":
        return [PREFIX] * len(names)
    captions = read_captions(config.captions, names)
    return [build_prompt(captions[name], backbone.tokenizer) for name in names]
