"""Validation on held-out images during a fine-tuning: always the same noise and prompt.

They come from the validation split, never from the test images.

Shapes: N images, C latent channels, h and w cells, r attention map side.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from didgen.attention.annotation import otsu
from didgen.attention.layers import CROSS_SIDE
from didgen.attention.maps import minmax, resize_mask, upsample
from didgen.attention.panels import attention_panel
from didgen.attention.recorder import AttentionRecorder, CrossRequest
from didgen.backbone.handle import Backbone
from didgen.backbone.sampling import initial_noise, sample
from didgen.data.images import read_image, read_mask
from didgen.data.manifest import read_manifest, resolve
from didgen.methods.didgen.cache import check_sizes
from didgen.methods.didgen.objective import attention_loss, reconstruction_loss
from didgen.methods.protocol import derive_seed
from didgen.metrics.segmentation import iou
from didgen.runtime.files import read_json, write_json, write_png
from didgen.runtime.precision import autocast
from didgen.settings.finetune import Config
from didgen.training.log import Log
from didgen.training.optimization import NonFiniteLoss
from didgen.training.state import Row

LOGGER = logging.getLogger(__name__)
# Little, medium and much noise; maps are read at the first.
TIMESTEPS = (100, 400, 700)
GUIDANCE_SCALE = 5.0
# Numbers by name, after so many steps.
Measure = Callable[[int], Row]


class Validation:
    """Measures before the first step, every so many and after the last; the rows, one each.

    `measure` is called with the UNet in evaluation mode. `folder` gets `validation.json`, and may
    hold that of the interrupted run that this one continues.
    """

    def __init__(self, measure: Measure, folder: Path, steps: int, every: int, log: Log) -> None:
        self._measure, self._file, self._log = measure, folder / "validation.json", log
        self._due = set(validation_steps(steps, every))
        self.rows: list[Row] = []

    def begin(self, done: int) -> None:
        """Take up the rows of the `done` steps that are kept of an interrupted run."""
        if self._file.is_file():
            self.rows = [row for row in read_json(self._file) if row["step"] <= done]

    def due(self, done: int) -> bool:
        """Whether a validation is due after so many steps."""
        return done in self._due and all(row["step"] != done for row in self.rows)

    def run(self, done: int, unet: nn.Module) -> None:
        """Validate with the weights that the UNet has now. Raises: NonFiniteLoss."""
        started = time.monotonic()
        training = unet.training
        unet.eval()
        row = {"step": done, **self._measure(done)}
        unet.train(training)
        broken = [name for name, value in row.items() if not math.isfinite(value)]
        if broken:
            raise NonFiniteLoss(
                f"validation after step {done}: found {', '.join(broken)} not finite; the last "
                "saved state is kept. At step 0 the backbone's own weights are broken: fetch it "
                "again; later, lower finetune.learning_rate and delete the state to start anew"
            )
        self.rows.append(row)
        write_json(self._file, self.rows)
        self._log.evaluation(row | {"seconds": round(time.monotonic() - started, 1)})


def validation_steps(steps: int, every: int) -> list[int]:
    """The steps after which to validate: before the first, every so many, and after the last."""
    return sorted({0, *range(every, steps + 1, every), steps})


@dataclass(frozen=True)
class HeldOut:
    """Held-out images as latents (N, C, h, w), their seeds, and the prompt they are seen with."""

    latents: Tensor
    seeds: tuple[int, ...]
    prompt: str
    positions: tuple[int, int]


@torch.inference_mode()
def hold_out(
    backbone: Backbone,
    images: Tensor,
    seeds: Sequence[int],
    prompt: str,
    positions: tuple[int, int],
) -> HeldOut:
    """Encode images (N, 3, H, W) in [-1, 1] one by one, to their mean latents."""
    latents = torch.cat([backbone.encode_moments(image[None])[0] for image in images])
    # No inference tensors: they are read inside other modes later.
    return HeldOut(latents.clone(), tuple(seeds), prompt, positions)


@torch.no_grad()
def look(
    backbone: Backbone, held_out: HeldOut, masks: Tensor, resolution: int, precision: str
) -> tuple[dict[str, float], Tensor]:
    """Validation losses by name, and both tokens' attention maps (N, 2, r, r) at little noise.

    masks (N, 2, r, r) are the soft masks of lesion and skin. "loss_rec" is the mean over
    `TIMESTEPS`; "loss_rec_100" and so on are those of one; "loss_attn" is Eq. 3 at the first.
    """
    clean, device = held_out.latents, backbone.device
    embedding = backbone.embed([held_out.prompt]).expand(len(clean), -1, -1)
    noise = initial_noise(held_out.seeds, clean.shape[1:], device, clean.dtype)
    wanted: CrossRequest = {"resolution": resolution, "positions": list(held_out.positions)}
    losses, maps = {}, None
    for number in TIMESTEPS:
        timesteps = torch.full((len(clean),), number, device=device)
        noisy = backbone.add_noise(clean, noise, timesteps)
        target = backbone.training_target(clean, noise, timesteps)
        with (
            AttentionRecorder(backbone.unet, cross=wanted) as recorder,
            autocast(device, precision),
        ):
            prediction = backbone.predict(noisy, timesteps, embedding)
        losses[f"loss_rec_{number}"] = float(reconstruction_loss(prediction, target).mean())
        maps = recorder.cross_maps().float() if maps is None else maps
    mean = sum(losses.values()) / len(losses)
    attn = float(attention_loss(maps, masks.to(maps), "minmax", "mean").mean())
    return {"loss_rec": mean, "loss_attn": attn, **losses}, maps


def draw_samples(
    backbone: Backbone, held_out: HeldOut, count: int, steps: int, precision: str
) -> Tensor:
    """Images (count, 3, H, W) in [-1, 1] of the prompt, from fixed seeds 0, 1, ..."""
    with autocast(backbone.device, precision):
        latents = sample(
            backbone,
            [held_out.prompt] * count,
            range(count),
            steps=steps,
            guidance_scale=GUIDANCE_SCALE,
            scheduler="dpm++",
        )
    with torch.no_grad():
        return backbone.decode(latents).float().cpu()


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


def plan_of(config: Config, precision: str, folder: Path) -> Plan | None:
    """What a fine-tuning's settings ask for; None without validation."""
    if config.val is None or config.validation_images == 0:
        return None
    return Plan(
        config.val, config.validation_images, config.validation_samples, config.seed, CROSS_SIDE,
        precision, folder,
    )  # fmt: skip


def prepare_validation(
    plan: Plan, backbone: Backbone, prompt: str, positions: tuple[int, int]
) -> Measure | None:
    """Encode the images once; the function that scores and draws them. None without a mask.

    It returns the losses of `look`, "iou_lesion" and "iou_skin" (thresholded map and true mask,
    mean), and writes `validation/step-*.png`.

    Raises: `ValueError` for images of another size than the backbone's.
    """
    frame = read_manifest(plan.manifest)
    frame = frame[frame["mask"] != ""]
    if frame.empty:
        LOGGER.info("no validation image has a mask: training goes unwatched")
        return None
    frame = frame.sample(min(plan.images, len(frame)), random_state=plan.seed)
    paths, mask_paths = (
        [path for path in resolve(plan.manifest, frame[column]) if path is not None]
        for column in ("image", "mask")
    )
    check_sizes(paths, backbone.image_size)
    images = np.stack([read_image(path) for path in paths])
    masks = np.stack([read_mask(path) for path in mask_paths])
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).to(backbone.device).float() / 127.5 - 1
    seeds = [derive_seed(plan.seed, "validation", name) for name in frame["id"]]
    held_out = hold_out(backbone, pixels, seeds, prompt, positions)
    soft = resize_mask(torch.from_numpy(masks)[:, None].float(), (plan.resolution,) * 2)
    soft = torch.cat([soft, 1 - soft], dim=1)

    def measure(step: int) -> dict[str, float]:
        losses, maps = look(backbone, held_out, soft, plan.resolution, plan.precision)
        large, overlap = _overlaps(maps.cpu(), masks)
        samples = None
        if plan.samples:
            drawn = draw_samples(backbone, held_out, plan.samples, _STEPS, plan.precision)
            samples = ((drawn.permute(0, 2, 3, 1).numpy() + 1) * 127.5).round().astype(np.uint8)
        _draw(plan.folder / PICTURES / f"step-{step:07d}.png", images, masks, large, samples)
        return {**overlap, **losses}

    return measure


def _overlaps(maps: Tensor, masks: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
    """Both maps at the images' size, scaled to [0, 1], and their mean IoU with their regions."""
    large = minmax(upsample(maps, masks.shape[1:]))
    overlap = {}
    for index, (name, true) in enumerate((("lesion", masks), ("skin", ~masks))):
        thresholds, _ = otsu(large[:, index])
        predicted = (large[:, index] >= thresholds[:, None, None]).numpy()
        overlap[f"iou_{name}"] = float(np.mean(iou(predicted, true)))
    return large.numpy(), overlap


def _draw(
    path: Path,
    images: np.ndarray,
    masks: np.ndarray,
    maps: np.ndarray,
    samples: np.ndarray | None,
) -> None:
    """One picture: a row an image (itself, its two maps, the true outline), then the samples."""
    rows = [
        attention_panel(images[i], maps[i, 0], maps[i, 1], masks[i], factor=1)
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
