"""Region-aware fine-tuning: Eq. 1, 3 and 4 on cached latents, resumable step by step.

Every random choice of a step is drawn from a generator seeded by (seed, step), and the data order
from (seed, epoch), so a resumed run repeats the undisturbed one without saved generator states.
Shapes: B batch, C latent channels, T tokens, D text width, r attention map side.
"""

import contextlib
import logging
import math
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from didgen.attention.losses import region_attention_loss
from didgen.attention.recorder import AttentionRecorder
from didgen.backbone.handle import Backbone
from didgen.backbone.precision import autocast
from didgen.data.files import atomic_directory, read_json, write_json
from didgen.data.progress import track
from didgen.synthesis.didgen.cache import TrainingCache
from didgen.synthesis.protocol import derive_seed

LOGGER = logging.getLogger(__name__)


class TrainingStopped(SystemExit):
    """Training was asked to end (SIGTERM); its state is saved and the same command continues."""


class NonFiniteLoss(ValueError):
    """The loss became NaN or infinite; the last saved state is kept."""


@dataclass(frozen=True)
class TrainingSettings:
    """The knobs of the loop; `didgen.stages.finetune` documents each with its unit."""

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    max_grad_norm: float
    alpha: float
    reading: str
    prefix_only: float
    prompt_dropout: float
    checkpoint_every: int
    precision: str
    seed: int
    resolution: int = 16


@dataclass(frozen=True)
class StepLoss:
    """The losses of one step (Eq. 4 and its two parts) and the gradient's norm."""

    step: int
    loss: float
    loss_rec: float
    loss_attn: float
    lr: float
    grad_norm: float
    seconds: float


def reconstruction_loss(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Eq. 1: mean squared error of the predicted noise (or velocity), one value an image.

    Shapes: (B, C, h, w) both; result (B,).
    """
    return F.mse_loss(prediction.float(), target.float(), reduction="none").flatten(1).mean(1)


def total_loss(
    loss_rec: torch.Tensor, loss_attn: torch.Tensor, has_mask: torch.Tensor, alpha: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Eq. 4: L = L_rec + alpha L_attn, with L_attn averaged over the images that have a mask.

    Shapes: (B,) each. Returns the total and the mean L_attn, both scalars.
    """
    weight = has_mask.to(loss_attn.dtype)
    attn = (loss_attn * weight).sum() / weight.sum().clamp(min=1.0)
    return loss_rec.mean() + alpha * attn, attn


def finetune(
    backbone: Backbone,
    cache: TrainingCache,
    positions: tuple[int, int],
    prefix: str,
    settings: TrainingSettings,
    state: Path,
) -> list[StepLoss]:
    """Fine-tune the backbone's UNet in place; returns the loss curve, resumed parts included.

    `positions` are those of `<lesion>` and `<skin>` in every prompt but the empty one; `state` is
    a folder that belongs to this run alone. Raises: `NonFiniteLoss`, `TrainingStopped`.
    """
    unet = backbone.unet.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(
        unet.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    curve = _resume(unet, optimizer, state, settings.steps)
    if curve:
        LOGGER.info("continuing after step %d of %d", len(curve), settings.steps)
    started = time.monotonic()
    with _stop_on_sigterm() as stop_requested:
        for step in track(range(len(curve), settings.steps), label="finetune"):
            curve.append(
                _step(backbone, optimizer, cache, positions, prefix, settings, step, started)
            )
            last = step + 1 == settings.steps
            if (step + 1) % settings.checkpoint_every == 0 or last or stop_requested():
                _save(unet, optimizer, curve, state)
            if (step + 1) % max(1, min(25, settings.steps // 10)) == 0:
                recent = curve[-25:]
                LOGGER.info(
                    "step %d: loss %.4f, rec %.4f, attn %.4f",
                    step + 1,
                    *(sum(getattr(s, k) for s in recent) / len(recent)
                      for k in ("loss", "loss_rec", "loss_attn")),
                )  # fmt: skip
            if stop_requested() and not last:
                raise TrainingStopped(143)
    unet.requires_grad_(False).eval()
    return curve


def _step(
    backbone: Backbone,
    optimizer: torch.optim.Optimizer,
    cache: TrainingCache,
    positions: tuple[int, int],
    prefix: str,
    settings: TrainingSettings,
    step: int,
    started: float,
) -> StepLoss:
    lr = settings.learning_rate * min(1.0, (step + 1) / max(1, settings.warmup_steps))
    for group in optimizer.param_groups:
        group["lr"] = lr
    batch = _draw(backbone, cache, prefix, settings, step)
    wanted = {"resolution": settings.resolution, "positions": list(positions)}
    with (
        AttentionRecorder(backbone.unet, cross=wanted) as recorder,
        autocast(backbone.device, settings.precision),
    ):
        prediction = backbone.predict(batch.noisy, batch.timesteps, batch.embeddings)
    loss_rec = reconstruction_loss(prediction, batch.target)
    loss_attn = region_attention_loss(recorder.cross_maps(), batch.masks, reading=settings.reading)
    loss, attn = total_loss(loss_rec, loss_attn, batch.has_mask, settings.alpha)
    if not math.isfinite(loss.item()):
        raise NonFiniteLoss(
            f"step {step + 1}: the loss is {loss.item()}; the last saved state is kept. "
            "Lower finetune.learning_rate or use finetune.precision: float32, then run again"
        )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(backbone.unet.parameters(), settings.max_grad_norm)
    optimizer.step()
    return StepLoss(
        step=step + 1,
        loss=loss.item(),
        loss_rec=loss_rec.mean().item(),
        loss_attn=attn.item(),
        lr=lr,
        grad_norm=float(norm),
        seconds=round(time.monotonic() - started, 2),
    )


@dataclass(frozen=True)
class _Batch:
    noisy: torch.Tensor
    target: torch.Tensor
    timesteps: torch.Tensor
    embeddings: torch.Tensor
    masks: torch.Tensor
    has_mask: torch.Tensor


def batch_rows(n: int, batch_size: int, step: int, seed: int) -> np.ndarray:
    """The data rows of a step: a fresh permutation an epoch, no row lost between epochs."""
    wanted = np.arange(step * batch_size, (step + 1) * batch_size)
    rows = np.empty(batch_size, dtype=np.int64)
    for epoch in np.unique(wanted // n):
        order = np.random.default_rng([seed, int(epoch)]).permutation(n)
        here = wanted // n == epoch
        rows[here] = order[wanted[here] % n]
    return rows


def _draw(
    backbone: Backbone, cache: TrainingCache, prefix: str, settings: TrainingSettings, step: int
) -> _Batch:
    generator = torch.Generator().manual_seed(derive_seed("finetune", settings.seed, step))
    rows = batch_rows(len(cache), settings.batch_size, step, settings.seed)
    moments = torch.from_numpy(np.asarray(cache.moments[rows], dtype=np.float32))
    mean, std = moments[:, 0], moments[:, 1]
    latents = mean + std * torch.randn(mean.shape, generator=generator)
    noise = torch.randn(mean.shape, generator=generator)
    trained = backbone.scheduler.config.num_train_timesteps
    timesteps = torch.randint(0, trained, (len(rows),), generator=generator)
    chance = torch.rand(len(rows), generator=generator).numpy()
    prompt_rows = cache.prompt_rows[rows].copy()
    prompt_rows[chance < settings.prefix_only + settings.prompt_dropout] = cache.fixed_rows[prefix]
    empty = chance < settings.prompt_dropout
    prompt_rows[empty] = cache.fixed_rows[""]
    device = backbone.device
    latents, noise, timesteps = latents.to(device), noise.to(device), timesteps.to(device)
    embeddings = torch.from_numpy(np.asarray(cache.embeddings[prompt_rows], dtype=np.float32))
    return _Batch(
        noisy=backbone.add_noise(latents, noise, timesteps),
        target=backbone.training_target(latents, noise, timesteps),
        timesteps=timesteps,
        embeddings=embeddings.to(device),
        masks=torch.from_numpy(np.asarray(cache.masks[rows])).to(device),
        # An empty prompt has no `<lesion>`: nothing to tie to a region.
        has_mask=torch.from_numpy(cache.has_mask[rows] & ~empty).to(device),
    )


def _save(
    unet: torch.nn.Module, optimizer: torch.optim.Optimizer, curve: list[StepLoss], state: Path
) -> None:
    newest = state / f"step-{len(curve):07d}"
    with atomic_directory(newest) as folder:
        save_file({k: v.contiguous() for k, v in unet.state_dict().items()}, folder / "unet.st")
        moments = {}
        for index, entry in optimizer.state_dict()["state"].items():
            moments |= {f"{index}.{key}": value.contiguous() for key, value in entry.items()}
        save_file(moments, folder / "optimizer.st")
        write_json(folder / "curve.json", [asdict(step) for step in curve])
    # Older states go only after the new one has its name: a kill at any moment leaves one whole.
    for older in state.glob("step-*"):
        if older != newest:
            shutil.rmtree(older)


def _resume(
    unet: torch.nn.Module, optimizer: torch.optim.Optimizer, state: Path, steps: int
) -> list[StepLoss]:
    """Load the newest state that is not beyond `steps`: a longer training cannot be undone."""
    saved = sorted(state.glob("step-*"))
    saved = [folder for folder in saved if int(folder.name.removeprefix("step-")) <= steps]
    if not saved:
        return []
    folder = saved[-1]
    unet.load_state_dict(load_file(folder / "unet.st"))
    entries: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in load_file(folder / "optimizer.st").items():
        index, _, key = name.partition(".")
        entries.setdefault(int(index), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": entries, "param_groups": groups})
    return [StepLoss(**step) for step in read_json(folder / "curve.json")]


@contextlib.contextmanager
def _stop_on_sigterm() -> Iterator[Callable[[], bool]]:
    """Turn SIGTERM into a question asked between steps, so that no step is cut in half."""
    asked = []
    previous = signal.getsignal(signal.SIGTERM)
    try:
        signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    except ValueError:  # not the main thread: the caller handles signals
        yield lambda: False
        return
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGTERM, previous)
