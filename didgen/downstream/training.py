"""One training loop for both tasks: a fixed budget of steps, early stopping on validation."""

import contextlib
import copy
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from didgen.downstream.augmentation import augment, to_float
from didgen.downstream.datasets import ImageSet
from didgen.downstream.feeding import batches_of
from didgen.downstream.state import (
    Progress,
    TrainingStopped,
    Weights,
    resume_state,
    save_state,
    stop_on_sigterm,
)
from didgen.runtime.precision import Precision, autocast, default_device, pick_precision
from didgen.runtime.progress import track
from didgen.runtime.reproducible import deterministic_kernels
from didgen.settings.schedule import Schedule

LOGGER = logging.getLogger(__name__)
EVALUATION_BATCH = 64
GRADIENT_NORM = 1.0
# Seconds between saved states, which are written at evaluations: short trainings need none.
SAVE_EVERY = 30.0

Loss = Callable[[Any, torch.Tensor], torch.Tensor]
Score = Callable[[np.ndarray, ImageSet], float]
Stronger = Callable[[torch.Tensor, torch.Tensor | None], tuple[torch.Tensor, torch.Tensor | None]]


class NonFiniteLoss(ValueError):
    """The loss became NaN or infinite; nothing was written."""


@dataclass
class Outcome:
    """What a training gave; the model holds the weights of `best_step`."""

    best_step: int = 0
    best_score: float = -math.inf
    steps: int = 0
    seconds: float = 0.0
    precision: str = "float32"
    device: str = "cpu"
    stopped_early: bool = False
    curves: list[dict[str, float]] = field(default_factory=list)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch inside, reproducible kernels on; its state outside is as it was before."""
    with (
        torch.random.fork_rng(),
        deterministic_kernels("cuda" if torch.cuda.is_available() else "cpu"),
    ):
        torch.manual_seed(seed)
        yield


def learning_rate(step: int, schedule: Schedule) -> float:
    """Linear warm-up, then half a cosine to zero; `step` counts from 0."""
    warmup = round(schedule.warmup * schedule.steps)
    if step < warmup:
        return schedule.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, schedule.steps - warmup)
    return schedule.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def arithmetic(wanted: Precision, device: torch.device) -> str:
    """Resolve "auto": bfloat16 on a GPU that has it, else float32.

    On a processor that has bfloat16, convolutions on channels-last batches take 1.6 times as long
    in it as in float32.
    """
    if wanted == "auto" and device.type == "cpu":
        return "float32"
    return pick_precision(wanted, device)


def draws(labels: np.ndarray | None, n: int, schedule: Schedule, seed: int) -> Iterator[np.ndarray]:
    """Endless batches of indices: passes over the shuffled set, or every class equally often.

    An arm with more images sees each less often; the number of images drawn is the same.
    """
    rng = np.random.default_rng([seed, 1])
    balanced = schedule.sampling == "balanced" and labels is not None
    chance = None
    if balanced:
        _, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
        chance = 1.0 / counts[place] / len(counts)
    queue = np.empty(0, np.int64)
    while True:
        while len(queue) < schedule.batch_size:
            more = rng.choice(n, n, p=chance) if balanced else rng.permutation(n)
            queue = np.concatenate([queue, more])
        yield queue[: schedule.batch_size]
        queue = queue[schedule.batch_size :]


def predict(
    model: nn.Module, data: ImageSet, device: torch.device, precision: str = "float32"
) -> np.ndarray:
    """The model's outputs for every image in order, without augmentation, as float32."""
    model.eval()
    outputs = []
    rows = np.split(np.arange(len(data)), range(EVALUATION_BATCH, len(data), EVALUATION_BATCH))
    with torch.inference_mode(), contextlib.closing(batches_of(data, rows)) as batches:
        for images, _ in batches:
            with autocast(device, precision):
                outputs.append(model(to_float(images.to(device))).float().cpu().numpy())
    return np.concatenate(outputs)


def train(
    model: nn.Module, data: ImageSet, val: ImageSet, loss: Loss, score: Score,
    schedule: Schedule, seed: int, device: torch.device | None = None, *,
    stronger: Stronger | None = None, state: Path | None = None,
) -> Outcome:  # fmt: skip
    """Train in place for at most `schedule.steps`; leave the weights of the best evaluation.

    `score(outputs, val)` is higher for better; the validation loss decides between equal scores.
    `stronger` augments uint8 batches before what all arms have in common. With `state`, a folder of
    this training's own, it continues what it finds there and saves as it goes. The same seed, data
    and machine give the same weights, interrupted or not.
    Raises: `NonFiniteLoss`, `BrokenState`, `TrainingStopped`.
    """
    device = device or default_device()
    precision = arithmetic(schedule.precision, device)
    model.to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay
    )
    found, best = (Progress(), None) if state is None else resume_state(state, model, optimizer)
    run = _Run(model, optimizer, loss, score, schedule, seed, device, precision, stronger)
    with seeded(seed), stop_on_sigterm() as asked:
        best = _loop(run, data, val, found, best, state, asked)
    model.load_state_dict(best)
    model.eval()
    return Outcome(
        best_step=found.best_step,
        best_score=found.best[0],
        steps=found.step,
        seconds=round(found.seconds, 2),
        precision=precision,
        device=str(device),
        stopped_early=found.step < schedule.steps,
        curves=found.curves,
    )


@dataclass(frozen=True)
class _Run:
    """What a step needs."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Loss
    score: Score
    schedule: Schedule
    seed: int
    device: torch.device
    precision: str
    stronger: Stronger | None


def _loop(
    run: _Run, data: ImageSet, val: ImageSet, progress: Progress, best: Weights | None,
    state: Path | None, asked: Callable[[], bool],
) -> Weights:  # fmt: skip
    """Steps, evaluations and saved states up to the end; returns the best weights."""
    schedule = run.schedule
    indices = draws(data.labels, len(data), schedule, run.seed)
    before, started = progress.seconds, time.perf_counter()
    saved, losses = started, [torch.tensor(x) for x in progress.losses]
    with contextlib.closing(batches_of(data, islice(indices, progress.step, None))) as batches:
        for step in track(range(progress.step, schedule.steps), label="training"):
            # A training that was saved when its patience had ended stops here again.
            if progress.since_best >= schedule.patience:
                break
            losses.append(_step(run, step, next(batches)))
            progress.step = step + 1
            last = progress.step == schedule.steps
            evaluated = progress.step % schedule.eval_every == 0 or last
            progress.seconds = before + time.perf_counter() - started
            if evaluated:
                best = _evaluation(run, val, progress, best, float(torch.stack(losses).mean()))
                losses = []
            stop = asked() and not last
            due = evaluated and time.perf_counter() - saved >= SAVE_EVERY
            if state is not None and (stop or due):
                progress.losses = [float(x) for x in losses]
                save_state(state, run.model, best, run.optimizer, progress)
                saved = time.perf_counter()
            if stop:
                LOGGER.warning("asked to end after step %d of %d", progress.step, schedule.steps)
                raise TrainingStopped(143)
    return best


def _evaluation(
    run: _Run, val: ImageSet, progress: Progress, best: Weights | None, train_loss: float
) -> Weights:
    """Add a row to the curves; the weights, if they are the best yet, else the best before."""
    found = evaluate(run.model, val, run.loss, run.score, run.device, run.precision)
    _record(progress, train_loss, found, learning_rate(progress.step - 1, run.schedule))
    progress.since_best += 1
    if best is not None and found <= tuple(progress.best):
        return best
    progress.best, progress.best_step, progress.since_best = list(found), progress.step, 0
    return copy.deepcopy(run.model.state_dict())


def evaluate(
    model: nn.Module, val: ImageSet, loss: Loss, score: Score, device: torch.device, precision: str
) -> tuple[float, float]:
    """The score of a set and minus its loss, so that larger is better in both."""
    outputs = predict(model, val, device, precision)
    targets = val.targets(np.arange(len(val)))
    return score(outputs, val), -float(loss(torch.from_numpy(outputs), targets))


def _step(run: _Run, step: int, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    # What a step draws depends on its number alone: a resumed training repeats the undisturbed one.
    number = int(np.random.SeedSequence([run.seed, step]).generate_state(1)[0])
    torch.manual_seed(number)
    images, targets = batch
    masks = targets if targets.ndim == 4 else None
    if run.stronger is not None:
        images, masks = run.stronger(images, masks)
    images = images.to(run.device)
    masks = None if masks is None else masks.to(run.device)
    images, masks = augment(images, masks, torch.Generator().manual_seed(number))
    run.model.train()
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(step, run.schedule)
    with autocast(run.device, run.precision):
        outputs = run.model(images)
    value = run.loss(outputs, targets.to(run.device) if masks is None else masks)
    if not torch.isfinite(value):
        raise NonFiniteLoss(
            f"the training loss became {value.item()} at step {step + 1}; "
            "lower learning_rate or set precision to float32"
        )
    run.optimizer.zero_grad(set_to_none=True)
    value.backward()
    nn.utils.clip_grad_norm_(run.model.parameters(), GRADIENT_NORM)
    run.optimizer.step()
    return value.detach()


def _record(progress: Progress, train_loss: float, found: tuple[float, float], rate: float) -> None:
    row = {
        "step": progress.step,
        "train_loss": train_loss,
        "val_loss": -found[1],
        "val_score": found[0],
        "learning_rate": rate,
        "seconds": round(progress.seconds, 2),
    }
    progress.curves.append(row)
    LOGGER.info(
        "step %d: training loss %.3f, validation loss %.3f, score %.3f",
        row["step"], train_loss, row["val_loss"], row["val_score"],
    )  # fmt: skip
