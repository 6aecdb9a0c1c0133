"""One training loop for both tasks: a fixed budget of steps, early stopping on validation."""

import contextlib
import copy
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from didgen.backbone.precision import autocast, default_device, pick_precision
from didgen.data.progress import track
from didgen.downstream.augmentation import augment, to_float
from didgen.downstream.datasets import ImageSet
from didgen.downstream.schedule import Schedule

LOGGER = logging.getLogger(__name__)
EVALUATION_BATCH = 64
GRADIENT_NORM = 1.0

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Score = Callable[[np.ndarray, ImageSet], float]


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
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
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
    with torch.inference_mode():
        for start in range(0, len(data), EVALUATION_BATCH):
            rows = np.arange(start, min(start + EVALUATION_BATCH, len(data)))
            images = to_float(data.batch(rows)[0].to(device))
            with autocast(device, precision):
                outputs.append(model(images).float().cpu().numpy())
    return np.concatenate(outputs)


def train(
    model: nn.Module, data: ImageSet, val: ImageSet, loss: Loss, score: Score,
    schedule: Schedule, seed: int, device: torch.device | None = None,
) -> Outcome:  # fmt: skip
    """Train in place for at most `schedule.steps`; leave the weights of the best evaluation.

    `score(outputs, val)` is higher for better; the validation loss decides between equal scores.
    The same seed, data and machine give the same weights.
    """
    device = device or default_device()
    outcome = Outcome(device=str(device), precision=pick_precision(schedule.precision, device))
    started = time.perf_counter()
    model.to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay
    )
    generator = torch.Generator().manual_seed(seed)
    batches = draws(data.labels, len(data), schedule, seed)
    best: tuple[float, float] = (-math.inf, -math.inf)
    best_state, since_best, losses = None, 0, []
    with seeded(seed):
        for step in track(range(schedule.steps), label="training"):
            rate = learning_rate(step, schedule)
            losses.append(
                _step(model, data.batch(next(batches)), loss, optimizer, rate, generator, outcome)
            )
            outcome.steps = step + 1
            if outcome.steps % schedule.eval_every and outcome.steps != schedule.steps:
                continue
            found = evaluate(model, val, loss, score, device, outcome.precision)
            _record(outcome, float(torch.stack(losses).mean()), found, rate, started)
            losses = []
            since_best += 1
            if best_state is None or found > best:
                best, best_state, since_best = found, copy.deepcopy(model.state_dict()), 0
                outcome.best_step, outcome.best_score = outcome.steps, found[0]
            if since_best >= schedule.patience and outcome.steps < schedule.steps:
                outcome.stopped_early = True
                break
    model.load_state_dict(best_state)
    model.eval()
    outcome.seconds = time.perf_counter() - started
    return outcome


def evaluate(
    model: nn.Module, val: ImageSet, loss: Loss, score: Score, device: torch.device, precision: str
) -> tuple[float, float]:
    """The score of a set and minus its loss, so that larger is better in both."""
    outputs = predict(model, val, device, precision)
    targets = val.batch(np.arange(len(val)))[1]
    return score(outputs, val), -float(loss(torch.from_numpy(outputs), targets))


def _step(
    model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor], loss: Loss,
    optimizer: torch.optim.Optimizer, rate: float, generator: torch.Generator, outcome: Outcome,
) -> torch.Tensor:  # fmt: skip
    device = next(model.parameters()).device
    images, targets = (tensor.to(device) for tensor in batch)
    masked = targets.ndim == 4
    images, masks = augment(images, targets if masked else None, generator)
    model.train()
    for group in optimizer.param_groups:
        group["lr"] = rate
    with autocast(device, outcome.precision):
        outputs = model(images)
    value = loss(outputs, masks if masked else targets)
    if not torch.isfinite(value):
        raise NonFiniteLoss(
            f"the training loss became {value.item()} at step {outcome.steps + 1}; "
            "lower learning_rate or set precision to float32"
        )
    optimizer.zero_grad(set_to_none=True)
    value.backward()
    nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM)
    optimizer.step()
    return value.detach()


def _record(
    outcome: Outcome, train_loss: float, found: tuple[float, float], rate: float, started: float
) -> None:
    row = {
        "step": outcome.steps,
        "train_loss": train_loss,
        "val_loss": -found[1],
        "val_score": found[0],
        "learning_rate": rate,
        "seconds": round(time.perf_counter() - started, 2),
    }
    outcome.curves.append(row)
    LOGGER.info(
        "step %d: training loss %.3f, validation loss %.3f, score %.3f",
        row["step"], train_loss, row["val_loss"], row["val_score"],
    )  # fmt: skip
