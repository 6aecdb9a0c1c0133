"""The training of classifiers and segmenters: a fixed budget of steps, early stopping."""

import contextlib
import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from didgen.downstream.augmentation import augment, to_float
from didgen.downstream.datasets import ImageSet, read_ahead
from didgen.runtime.memory import explain_no_memory
from didgen.runtime.precision import autocast, default_device, pick_precision
from didgen.runtime.reproducible import deterministic_kernels
from didgen.settings.base import Precision
from didgen.settings.schedule import Schedule
from didgen.training.log import Log
from didgen.training.loop import run_steps
from didgen.training.optimization import update, warm_up_and_cosine
from didgen.training.state import Row, resume_state

EVALUATION_BATCH = 64
GRADIENT_NORM = 1.0
# Seconds between saved states, which are written at evaluations: short trainings need none.
SAVE_EVERY = 30.0
NOT_FINITE = "Lower learning_rate or set precision to float32, then run again"
NEEDS_LESS = (
    "What needs less: a smaller batch_size or image_size, precision: bfloat16 (GPU), a smaller "
    "network; memory_gb: 0 where it is the processor's memory that images fill"
)

Loss = Callable[[Any, Tensor], Tensor]
Score = Callable[[np.ndarray, ImageSet], float]
Stronger = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor | None]]


@dataclass
class Outcome:
    """What a training gave; the model holds the weights of `best_step`."""

    best_step: int
    best_score: float
    steps: int
    seconds: float
    precision: str
    device: str
    stopped_early: bool
    curves: list[Row]


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch inside, reproducible kernels on; its state outside is as it was before."""
    with (
        torch.random.fork_rng(),
        deterministic_kernels("cuda" if torch.cuda.is_available() else "cpu"),
    ):
        torch.manual_seed(seed)
        yield


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
    chance = None
    if schedule.sampling == "balanced" and labels is not None:
        _, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
        chance = 1.0 / counts[place] / len(counts)
    queue = np.empty(0, np.int64)
    while True:
        while len(queue) < schedule.batch_size:
            more = rng.permutation(n) if chance is None else rng.choice(n, n, p=chance)
            queue = np.concatenate([queue, more])
        yield queue[: schedule.batch_size]
        queue = queue[schedule.batch_size :]


def predict(model: nn.Module, data: ImageSet, device: torch.device, precision: str) -> np.ndarray:
    """The model's outputs for every image in order, without augmentation, as float32."""
    return predict_each([(model, precision)], data, device)[0]


def predict_each(
    networks: Sequence[tuple[nn.Module, str]], data: ImageSet, device: torch.device
) -> list[np.ndarray]:
    """What `predict` gives for each network and its precision; every image is read once."""
    outputs: list[list[np.ndarray]] = [[] for _ in networks]
    for model, _ in networks:
        model.to(device).eval()
    rows = np.split(np.arange(len(data)), range(EVALUATION_BATCH, len(data), EVALUATION_BATCH))
    with torch.inference_mode(), contextlib.closing(read_ahead(data, rows)) as batches:
        for pixels, _ in batches:
            images = to_float(pixels.to(device))
            for (model, precision), own in zip(networks, outputs, strict=True):
                with autocast(device, precision):
                    own.append(model(images).float().cpu().numpy())
    return [np.concatenate(own) for own in outputs]


@explain_no_memory(NEEDS_LESS)
def train(
    model: nn.Module, data: ImageSet, val: ImageSet, loss: Loss, score: Score,
    schedule: Schedule, seed: int, device: torch.device | None = None, *,
    stronger: Stronger | None = None, state: Path | None = None, log: Log | None = None,
) -> Outcome:  # fmt: skip
    """Train in place for at most `schedule.steps`; leave the weights of the best evaluation.

    `score(outputs, val)` is higher for better; the best evaluation is that of the best score, the
    lower loss deciding between equal ones, or with `stop_by: loss` the other way round.
    `stronger` augments uint8 batches before what all arms have in common. With `state`, a folder of
    this training's own, it continues what it finds there and saves as it goes. The same seed, data
    and machine give the same weights, interrupted or not.
    Raises: `NonFiniteLoss`, `BrokenState`, `TrainingStopped`, `OutOfMemory`, `TrackerError`.
    """
    device = device or default_device()
    precision = arithmetic(schedule.precision, device)
    model.to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay
    )
    step = Step(model, optimizer, loss, schedule, seed, device, precision, stronger)
    best = _Best()
    parts = {"model": model, "optimizer": optimizer, "best": best}
    history = resume_state(parts, state, schedule.steps)
    log = log or Log("training", report_to="none")
    saved = time.monotonic()

    def evaluation_due(done: int) -> bool:
        due = done > 0 and (done % schedule.eval_every == 0 or done == schedule.steps)
        return due and not any(row["step"] == done for row in best.curves[-1:])

    def save_due(done: int) -> bool:
        nonlocal saved
        due = evaluation_due(done) and time.monotonic() - saved >= SAVE_EVERY
        saved = time.monotonic() if due else saved
        return due

    def evaluation(done: int) -> bool:
        result = evaluate(model, val, loss, score, device, precision)
        since = int(best.curves[-1]["step"]) if best.curves else 0
        row = {
            "step": done,
            "train_loss": float(torch.tensor([row["loss"] for row in history[since:]]).mean()),
            "val_loss": -result[1],
            "val_score": result[0],
            "learning_rate": history[-1]["lr"],
            "seconds": history[-1]["seconds"],
        }
        best.note(row, result, model, by_loss=schedule.stop_by == "loss")
        log.evaluation(row)
        return best.since >= schedule.patience

    indices = islice(draws(data.labels, len(data), schedule, seed), len(history), None)
    with seeded(seed), contextlib.closing(read_ahead(data, indices)) as batches:
        run_steps(
            lambda number: step(number, next(batches)), parts, history, schedule.steps, state,
            save_due=save_due, advice=NOT_FINITE, log=log, evaluate=evaluation,
            evaluation_due=evaluation_due,
        )  # fmt: skip
    model.load_state_dict(best.weights)
    model.eval()
    return Outcome(
        best_step=best.step,
        best_score=best.score[0],
        steps=len(history),
        seconds=history[-1]["seconds"],
        precision=precision,
        device=str(device),
        stopped_early=len(history) < schedule.steps,
        curves=best.curves,
    )


@dataclass
class _Best:
    """The evaluations, and the weights of the best one: a part of the saved state.

    score: of the best, and minus its loss. since: evaluations after it.
    """

    step: int = 0
    score: tuple[float, float] = (-np.inf, -np.inf)
    since: int = 0
    curves: list[Row] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)

    def note(self, row: Row, score: tuple[float, float], model: nn.Module, by_loss: bool) -> None:
        """Add an evaluation; keep the model's weights if they are the best yet."""
        self.curves.append(row)
        self.since += 1
        order = -1 if by_loss else 1
        if score[::order] > self.score[::order] or not self.weights:
            self.step, self.score, self.since = int(row["step"]), score, 0
            self.weights = copy.deepcopy(model.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Weights by their names, and "numbers"."""
        numbers = vars(self) | {"weights": None}
        return {**self.weights, "numbers": numbers if self.weights else {}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        numbers = state.pop("numbers")
        if numbers:
            vars(self).update(numbers, score=tuple(numbers["score"]), weights=state)


def evaluate(
    model: nn.Module, val: ImageSet, loss: Loss, score: Score, device: torch.device, precision: str
) -> tuple[float, float]:
    """The score of a set and minus its loss, so that larger is better in both."""
    outputs = predict(model, val, device, precision)
    targets = val.targets(np.arange(len(val)))
    return score(outputs, val), -float(loss(torch.from_numpy(outputs), targets))


@dataclass(frozen=True)
class Step:
    """A training step, with all that it needs."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Loss
    schedule: Schedule
    seed: int
    device: torch.device
    precision: str
    stronger: Stronger | None = None

    def __call__(self, step: int, batch: tuple[Tensor, Tensor]) -> Row:
        """Train on a batch of `ImageSet.batch`; `step` counts from 0. Raises: NonFiniteLoss."""
        # What a step draws depends on its number alone: a resumed training repeats the undisturbed
        # one.
        number = int(np.random.SeedSequence([self.seed, step]).generate_state(1)[0])
        torch.manual_seed(number)
        images, targets = batch
        masks = targets if targets.ndim == 4 else None
        if self.stronger is not None:
            images, masks = self.stronger(images, masks)
        images = images.to(self.device)
        masks = None if masks is None else masks.to(self.device)
        images, masks = augment(images, masks, torch.Generator().manual_seed(number))
        self.model.train()
        with autocast(self.device, self.precision):
            outputs = self.model(images)
        value = self.loss(outputs, targets.to(self.device) if masks is None else masks)
        value.backward()
        schedule = self.schedule
        share = warm_up_and_cosine(step, schedule.steps, round(schedule.warmup * schedule.steps))
        return update(
            self.optimizer,
            {"loss": value},
            learning_rate=schedule.learning_rate * share,
            max_norm=GRADIENT_NORM,
        )
