"""Region-aware fine-tuning: Eq. 1, 3 and 4 on cached latents, resumable step by step.

A step's random choices follow from the seed and its number (`batches`), so a resumed run repeats
the undisturbed one, and processes that share a step agree on them.
"""

import contextlib
import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from didgen.attention.layers import CROSS_SIDE
from didgen.attention.recorder import AttentionRecorder
from didgen.backbone.handle import Backbone
from didgen.methods.didgen.batches import Batch, Draws, assemble, draw
from didgen.methods.didgen.cache import TrainingCache
from didgen.methods.didgen.checkpoint import StepLoss, resume_state, save_state
from didgen.methods.didgen.objective import (
    attention_loss,
    reconstruction_loss,
    snr_weights,
    total_loss,
)
from didgen.methods.didgen.parallel import ALONE, Team
from didgen.methods.didgen.sharding import gather, whole
from didgen.methods.didgen.tuning import (
    Average,
    build_optimizer,
    explain_no_memory,
    finish_unet,
    prepare_unet,
)
from didgen.methods.didgen.watching import Watch
from didgen.runtime.precision import Precision, autocast
from didgen.runtime.reproducible import strict_kernels
from didgen.settings.finetune import Settings

LOGGER = logging.getLogger(__name__)


class TrainingStopped(SystemExit):
    """Training was asked to end (SIGTERM); its state is saved and the same command continues."""


class NonFiniteLoss(ValueError):
    """The loss or its gradient became NaN or infinite; the last saved state is kept."""


@dataclass(frozen=True)
class Run:
    """What a step needs.

    `unet`: the UNet that is trained, the backbone's own or a sharded copy; `module`: what is
    called, the same or what averages its gradients over processes.
    """

    backbone: Backbone
    unet: nn.Module
    module: nn.Module
    parameters: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    cache: TrainingCache
    positions: tuple[int, int]
    prefix: str
    settings: Settings
    seed: int
    precision: Precision
    team: Team


@explain_no_memory()
def finetune(
    backbone: Backbone,
    cache: TrainingCache,
    positions: tuple[int, int],
    prefix: str,
    settings: Settings,
    seed: int,
    precision: Precision,
    state: Path,
    team: Team = ALONE,
    watch: Watch | None = None,
) -> list[StepLoss]:
    """Fine-tune the backbone's UNet in place; returns the loss curve, resumed parts included.

    `positions` are those of `<lesion>` and `<skin>` in every prompt but the empty one; `state` is
    a folder that belongs to this run alone. Raises: `NonFiniteLoss`, `TrainingStopped`,
    `OutOfMemory`, `MissingExtra`, `BrokenState`, `NoDeterministicKernel`, `ValueError` for a
    batch that cannot be shared.
    """
    check_shares(settings, team.size)
    prepare_unet(backbone.unet, settings, seed)
    module = team.wrap(backbone.unet)
    unet = module if team.sharded else backbone.unet
    parameters = [p for p in unet.parameters() if p.requires_grad]
    optimizer = build_optimizer(parameters, settings)
    averaging = settings.ema and (team.rank == 0 or team.sharded)
    average = Average(parameters, settings.ema) if averaging else None
    curve = resume_state(unet, optimizer, average, state, settings.steps)
    if curve:
        LOGGER.info("continuing after step %d of %d", len(curve), settings.steps)
    run = Run(
        backbone,
        unet,
        module,
        parameters,
        optimizer,
        cache,
        positions,
        prefix,
        settings,
        seed,
        precision,
        team,
    )
    if team.rank == 0 and watch is None:
        watch = Watch(state, settings.steps)
    with _stop_on_sigterm() as asked, watch or contextlib.nullcontext():
        _loop(run, curve, average, state, watch, asked)
    if average is not None:
        average.swap()
    if team.sharded:
        gather(parameters, list(backbone.unet.parameters()))
    finish_unet(backbone.unet, settings)
    return curve


def check_shares(settings: Settings, processes: int) -> None:
    """Raises: ValueError when a batch cannot be shared evenly."""
    shares = processes * settings.accumulation
    if settings.batch_size % shares:
        raise ValueError(
            f"finetune.batch_size: found {settings.batch_size}, expected a multiple of processes "
            f"times accumulation, {processes} x {settings.accumulation} = {shares}"
        )


def _loop(
    run: Run,
    curve: list[StepLoss],
    average: Average | None,
    state: Path,
    watch: Watch | None,
    asked: Callable[[], bool],
) -> None:
    settings, team = run.settings, run.team
    unet = run.backbone.unet
    started = time.monotonic()
    if watch is not None:
        watch.begin(curve, unet)
    # One killed between saving a state and looking at it looks now.
    missed = watch is not None and len(curve) > 0 and watch.due(len(curve))
    if team.sum(torch.tensor(float(missed), device=run.backbone.device)) > 0:
        _look(run, len(curve), average, watch)
    for step in range(len(curve), settings.steps):
        curve.append(_step(run, step, started))
        if average is not None:
            average.update(step + 1)
        last = step + 1 == settings.steps
        due = watch is not None and watch.due(step + 1)
        wishes = torch.tensor([float(asked()), float(due)], device=run.backbone.device)
        stop, look = (team.sum(wishes) > 0).tolist()
        # Before a look too, which takes longer than the grace between SIGTERM and SIGKILL.
        save = (step + 1) % settings.checkpoint_every == 0 or last or stop or look
        if save and (team.rank == 0 or team.sharded):
            save_state(run.unet, run.optimizer, average, curve, state, first=team.rank == 0)
        if watch is not None:
            watch.step(curve)
        if look and (last or not stop):
            _look(run, step + 1, average, watch)
        if stop and not last:
            LOGGER.warning("asked to end: saved after step %d of %d", step + 1, settings.steps)
            # No process leaves before the first has saved: the end of one ends the others.
            team.wait()
            raise TrainingStopped(143)


def _look(run: Run, step: int, average: Average | None, watch: Watch | None) -> None:
    """Validate, with the averaged weights if there are; only the process with a watch does."""
    if watch is None and not run.team.sharded:
        return
    unet = run.backbone.unet
    with average.shown() if average is not None else contextlib.nullcontext():
        if run.team.sharded:
            gather(run.parameters, list(unet.parameters()))
        if watch is not None:
            watch.look(step, unet)


def _step(run: Run, step: int, started: float) -> StepLoss:
    settings, team = run.settings, run.team
    lr = settings.learning_rate * min(1.0, (step + 1) / max(1, settings.warmup_steps))
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    run.optimizer.zero_grad(set_to_none=True)
    trained = run.backbone.scheduler.config.num_train_timesteps
    draws = draw(run.cache, run.prefix, settings, run.seed, step, trained)
    parts = shares(settings, team)
    found: Tensor | float = 0.0
    for number, part in enumerate(parts, 1):
        adding = team.only_adding(run.module) if number < len(parts) else contextlib.nullcontext()
        with adding, strict_kernels():
            batch = assemble(run.backbone, run.cache, draws, part)
            losses = _losses(run, batch, draws)
            # Processes average their gradients, and here the parts' are to be added up.
            (losses[0] * team.size).backward()
        found = found + losses.detach()
    norm = whole(torch.nn.utils.clip_grad_norm_(run.parameters, settings.max_grad_norm))
    loss, loss_rec, loss_attn, size = torch.cat([team.sum(found), norm.reshape(1)]).tolist()
    for what, value in (("loss", loss), ("gradient's norm", size)):
        if not math.isfinite(value):
            raise NonFiniteLoss(
                f"step {step + 1}: the {what} is {value}; the last saved state is kept. "
                "Lower finetune.learning_rate or use finetune.precision: float32, then run again"
            )
    run.optimizer.step()
    seconds = round(time.monotonic() - started, 2)
    return StepLoss(step + 1, loss, loss_rec, loss_attn, lr, size, seconds)


def shares(settings: Settings, team: Team) -> list[slice]:
    """This process's parts of a batch, one for each pass of an accumulated step."""
    width = settings.batch_size // (team.size * settings.accumulation)
    first = team.rank * settings.accumulation
    return [
        slice((first + n) * width, (first + n + 1) * width) for n in range(settings.accumulation)
    ]


def _losses(run: Run, batch: Batch, draws: Draws) -> Tensor:
    """A part's share of L, L_rec and L_attn (3,): summed over the parts they are the batch's."""
    settings = run.settings
    wanted = {"resolution": CROSS_SIDE, "positions": list(run.positions)}
    noisy = batch.noisy
    if settings.channels_last:
        noisy = noisy.contiguous(memory_format=torch.channels_last)
    with (
        AttentionRecorder(run.unet, cross=wanted) as recorder,
        autocast(run.backbone.device, run.precision),
    ):
        prediction = run.module(
            noisy, batch.timesteps, encoder_hidden_states=batch.embeddings
        ).sample
    loss_rec = reconstruction_loss(prediction, batch.target)
    if settings.snr_gamma is not None:
        scheduler = run.backbone.scheduler
        kind = run.backbone.prediction_type
        loss_rec = loss_rec * snr_weights(
            scheduler.alphas_cumprod, batch.timesteps, kind, settings.snr_gamma
        )
    loss_attn = attention_loss(
        recorder.cross_maps(), batch.masks, settings.reading, settings.normalization
    )
    images, masked = settings.batch_size, int(draws.regions.sum())
    loss, attn = total_loss(loss_rec, loss_attn, batch.has_mask, settings.alpha, images, masked)
    return torch.stack([loss, loss_rec.sum() / images, attn])


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
