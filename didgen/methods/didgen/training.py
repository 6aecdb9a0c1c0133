"""Region-aware fine-tuning: Eq. 1, 3 and 4 on cached latents, resumable step by step.

A step's random choices follow from the seed and its number (`batches`), so a resumed run repeats
the undisturbed one, and processes that share a step agree on them.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from didgen.attention.layers import CROSS_SIDE
from didgen.attention.recorder import AttentionRecorder, CrossRequest
from didgen.backbone.handle import Backbone
from didgen.methods.didgen.batches import Batch, Draws, assemble, draw
from didgen.methods.didgen.cache import TrainingCache
from didgen.methods.didgen.objective import (
    attention_loss,
    reconstruction_loss,
    snr_weights,
    total_loss,
)
from didgen.methods.didgen.optimizer import (
    NEEDS_LESS,
    build_optimizer,
    finish_unet,
    prepare_unet,
)
from didgen.methods.didgen.validation import Validation
from didgen.runtime.memory import explain_no_memory
from didgen.runtime.precision import autocast
from didgen.runtime.reproducible import strict_kernels
from didgen.settings.finetune import Settings
from didgen.training.log import Log
from didgen.training.loop import run_steps
from didgen.training.optimization import Average, update, warm_up
from didgen.training.processes import ALONE, Team, gather
from didgen.training.state import Row, resume_state

# Layers that are gathered together where the UNet is sharded.
BLOCKS = ("ResnetBlock2D", "BasicTransformerBlock")
NOT_FINITE = "Lower finetune.learning_rate or use finetune.precision: float32, then run again"


@explain_no_memory(NEEDS_LESS)
def finetune(
    backbone: Backbone,
    cache: TrainingCache,
    positions: tuple[int, int],
    prefix: str,
    settings: Settings,
    seed: int,
    precision: str,
    state: Path,
    team: Team = ALONE,
    log: Log | None = None,
    validation: Validation | None = None,
) -> list[Row]:
    """Fine-tune the backbone's UNet in place; returns the loss curve, resumed parts included.

    `positions` are those of `<lesion>` and `<skin>` in every prompt but the empty one; `state` is
    a folder that belongs to this run alone. The first process alone has a log and a validation.
    Raises: `NonFiniteLoss`, `TrainingStopped`, `OutOfMemory`, `MissingExtra`, `BrokenState`,
    `NoDeterministicKernel`, `ValueError` for a batch that cannot be shared.
    """
    check_shares(settings, team.size)
    whole = backbone.unet
    prepare_unet(whole, settings, seed)
    module = team.wrap(whole, BLOCKS)
    unet = module if team.sharded else whole
    parameters = [p for p in unet.parameters() if p.requires_grad]
    optimizer = build_optimizer(parameters, settings)
    parts = {"unet": unet, "optimizer": optimizer}
    average = None
    if settings.ema and (team.rank == 0 or team.sharded):
        average = parts["average"] = Average(parameters, settings.ema)
    history = resume_state(parts, state, settings.steps)
    step = Step(
        backbone, unet, module, optimizer, cache, positions, prefix, settings, seed, precision, team
    )
    if validation is not None:
        validation.begin(len(history))

    def train(number: int) -> Row:
        row = step(number)
        if average is not None:
            average.update(number + 1)
        return row

    def evaluation_due(done: int) -> bool:
        return validation is not None and validation.due(done)

    def save_due(done: int) -> bool:
        every = done % settings.checkpoint_every == 0
        return every or done == settings.steps or evaluation_due(done)

    def evaluate(done: int) -> None:
        """Validate, with the averaged weights if there are."""
        if validation is None and not team.sharded:
            return
        with average.applied() if average is not None else contextlib.nullcontext():
            if team.sharded:
                gather(parameters, list(whole.parameters()))
            if validation is not None:
                validation.run(done, whole)

    run_steps(
        train, parts, history, settings.steps, state,
        save_due=save_due, advice=NOT_FINITE, log=log, evaluate=evaluate,
        evaluation_due=evaluation_due, team=team,
    )  # fmt: skip
    if average is not None:
        average.swap()
    if team.sharded:
        gather(parameters, list(whole.parameters()))
    finish_unet(whole, settings)
    return history


def check_shares(settings: Settings, processes: int) -> None:
    """Raises: ValueError when a batch cannot be shared evenly."""
    shares = processes * settings.accumulation
    if settings.batch_size % shares:
        raise ValueError(
            f"finetune.batch_size: found {settings.batch_size}, expected a multiple of processes "
            f"times accumulation, {processes} x {settings.accumulation} = {shares}"
        )


def shares(settings: Settings, team: Team) -> list[slice]:
    """This process's parts of a batch, one for each pass of an accumulated step."""
    width = settings.batch_size // (team.size * settings.accumulation)
    first = team.rank * settings.accumulation
    return [
        slice((first + n) * width, (first + n + 1) * width) for n in range(settings.accumulation)
    ]


@dataclass(frozen=True)
class Step:
    """A training step, with all that it needs.

    `unet`: the UNet that is trained, the backbone's own or a sharded copy; `module`: what is
    called, the same or what averages its gradients over processes.
    """

    backbone: Backbone
    unet: nn.Module
    module: nn.Module
    optimizer: torch.optim.Optimizer
    cache: TrainingCache
    positions: tuple[int, int]
    prefix: str
    settings: Settings
    seed: int
    precision: str
    team: Team = ALONE

    def __call__(self, step: int) -> Row:
        """Train on the batch of a step, counted from 0. Raises: NonFiniteLoss."""
        settings, team = self.settings, self.team
        trained = self.backbone.scheduler.config.num_train_timesteps
        draws = draw(self.cache, self.prefix, settings, self.seed, step, trained)
        parts = shares(settings, team)
        total: Tensor | float = 0.0
        for number, part in enumerate(parts, 1):
            last = number == len(parts)
            adding = contextlib.nullcontext() if last else team.only_adding(self.module)
            with adding, strict_kernels():
                losses = self._losses(assemble(self.backbone, self.cache, draws, part), draws)
                # Processes average their gradients, and here the parts' are to be added up.
                (losses[0] * team.size).backward()
            total = total + losses.detach()
        names = ("loss", "loss_rec", "loss_attn")
        return update(
            self.optimizer,
            dict(zip(names, team.sum(total), strict=True)),
            learning_rate=settings.learning_rate * warm_up(step, settings.warmup_steps),
            max_norm=settings.max_grad_norm,
        )

    def _losses(self, batch: Batch, draws: Draws) -> Tensor:
        """A part's share of L, L_rec and L_attn (3,), which add up to the batch's."""
        settings = self.settings
        wanted: CrossRequest = {"resolution": CROSS_SIDE, "positions": list(self.positions)}
        noisy = batch.noisy
        if settings.channels_last:
            noisy = noisy.contiguous(memory_format=torch.channels_last)
        with (
            AttentionRecorder(self.unet, cross=wanted) as recorder,
            autocast(self.backbone.device, self.precision),
        ):
            prediction = self.module(
                noisy, batch.timesteps, encoder_hidden_states=batch.embeddings
            ).sample
        loss_rec = reconstruction_loss(prediction, batch.target) * batch.weights
        if settings.snr_gamma is not None:
            scheduler = self.backbone.scheduler
            kind = self.backbone.prediction_type
            loss_rec = loss_rec * snr_weights(
                scheduler.alphas_cumprod, batch.timesteps, kind, settings.snr_gamma
            )
        # Without weight it is for the record.
        with contextlib.nullcontext() if settings.alpha else torch.no_grad():
            loss_attn = attention_loss(
                recorder.cross_maps(), batch.masks, settings.reading, settings.normalization
            )
        images, masked = settings.batch_size, int(draws.regions.sum())
        loss, attn = total_loss(loss_rec, loss_attn, batch.has_mask, settings.alpha, images, masked)
        return torch.stack([loss, loss_rec.sum() / images, attn])
