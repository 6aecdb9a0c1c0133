"""The held-out images that a fine-tuning is watched on: chosen, scored and drawn.

They come from the validation split, never from the test images.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch

    from didgen.backbone.handle import Backbone
    from didgen.methods.didgen.watching import Validate
    from didgen.settings.finetune import Config

LOGGER = logging.getLogger(__name__)
PICTURES = "validation"
# Images in a picture, and sampling steps of the samples under them.
_DRAWN, _STEPS = 4, 10


@dataclass(frozen=True)
class Plan:
    """Which images are looked at and how; `resolution` is the side of the maps of Eq. 3."""

    manifest: Path
    images: int
    samples: int
    seed: int
    resolution: int
    precision: str
    folder: Path


def plan_of(config: "Config", precision: str, folder: Path) -> Plan | None:
    """What a fine-tuning's settings ask for; None where nothing is to be looked at."""
    from didgen.attention.layers import CROSS_SIDE

    if config.val is None or config.validation_images == 0:
        return None
    return Plan(
        config.val, config.validation_images, config.validation_samples, config.seed, CROSS_SIDE,
        precision, folder,
    )  # fmt: skip


def prepare_validation(
    plan: Plan, backbone: "Backbone", prompt: str, positions: tuple[int, int]
) -> "Validate | None":
    """Encode the images once; the function that scores and draws them. None without a mask.

    It returns the losses of `look`, "iou_lesion" and "iou_skin" (thresholded map and true mask,
    mean), and writes `validation/step-*.png`.

    Raises: `ValueError` for images of another size than the backbone's.
    """
    import numpy as np
    import torch

    from didgen.attention.maps import resize_mask
    from didgen.data.images import read_image, read_mask
    from didgen.data.manifest import read_manifest, resolve
    from didgen.methods.didgen.cache import check_sizes
    from didgen.methods.didgen.validation import draw_samples, hold_out, look
    from didgen.methods.protocol import derive_seed

    frame = read_manifest(plan.manifest)
    frame = frame[frame["mask"] != ""]
    if frame.empty:
        LOGGER.info("no validation image has a mask: training goes unwatched")
        return None
    frame = frame.sample(min(plan.images, len(frame)), random_state=plan.seed)
    paths = resolve(plan.manifest, frame["image"])
    check_sizes(paths, backbone.image_size)
    images = np.stack([read_image(path) for path in paths])
    masks = np.stack([read_mask(path) for path in resolve(plan.manifest, frame["mask"])])
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).to(backbone.device).float() / 127.5 - 1
    seeds = [derive_seed(plan.seed, "validation", name) for name in frame["id"]]
    held_out = hold_out(backbone, pixels, seeds, prompt, positions)
    soft = resize_mask(torch.from_numpy(masks)[:, None].float(), (plan.resolution,) * 2)
    soft = torch.cat([soft, 1 - soft], dim=1)

    def validate(step: int) -> dict[str, float]:
        found, maps = look(backbone, held_out, soft, plan.resolution, plan.precision)
        large, overlap = _overlaps(maps.cpu(), masks)
        samples = None
        if plan.samples:
            drawn = draw_samples(backbone, held_out, plan.samples, _STEPS, plan.precision)
            samples = ((drawn.permute(0, 2, 3, 1).numpy() + 1) * 127.5).round().astype(np.uint8)
        _draw(plan.folder / PICTURES / f"step-{step:07d}.png", images, masks, large, samples)
        return {**overlap, **found}

    return validate


def _overlaps(maps: "torch.Tensor", masks: "np.ndarray") -> tuple["np.ndarray", dict[str, float]]:
    """Both maps at the images' size, scaled to [0, 1], and their mean IoU with their regions."""
    import numpy as np

    from didgen.attention.annotation import otsu
    from didgen.attention.maps import minmax, upsample
    from didgen.metrics.segmentation import iou

    large = minmax(upsample(maps, masks.shape[1:]))
    overlap = {}
    for index, (name, true) in enumerate((("lesion", masks), ("skin", ~masks))):
        thresholds, _ = otsu(large[:, index])
        found = (large[:, index] >= thresholds[:, None, None]).numpy()
        overlap[f"iou_{name}"] = float(np.mean(iou(found, true)))
    return large.numpy(), overlap


def _draw(
    path: Path,
    images: "np.ndarray",
    masks: "np.ndarray",
    maps: "np.ndarray",
    samples: "np.ndarray | None",
) -> None:
    """One picture: a row an image (itself, its two maps, the true outline), then the samples."""
    import numpy as np

    from didgen.report.panels import attention_panel
    from didgen.runtime.files import write_png

    rows = [
        attention_panel(images[i], *maps[i], masks[i], factor=1)
        for i in range(min(_DRAWN, len(images)))
    ]
    if samples is not None:
        row = np.full_like(rows[0], 255)
        gap = (row.shape[1] - 4 * images.shape[2]) // 3
        for place, sample in enumerate(samples[:4]):
            left = place * (sample.shape[1] + gap)
            row[:, left : left + sample.shape[1]] = sample
        rows.append(row)
    write_png(path, np.concatenate(rows))
