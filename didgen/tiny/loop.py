"""The training loop behind all phases of the tiny backbone's pretraining: resumable, averaged."""

import csv
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from didgen.runtime.files import atomic_path
from didgen.tiny.parallel import average_gradients, rank

LOGGER = logging.getLogger(__name__)


class OutOfTime(Exception):
    """The time limit was reached; the state was saved and the same command continues from it."""


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train.

    steps: optimizer steps. lr: peak learning rate, reached after `warmup` steps, then a cosine
    down to `final_lr` times it. ema: decay of the averaged weights. every: steps between saves.
    deadline: `time.monotonic()` value at which to stop, or None.
    """

    steps: int
    lr: float
    warmup: int = 100
    final_lr: float = 0.02
    ema: float = 0.999
    weight_decay: float = 0.0
    every: int = 200
    deadline: float | None = None

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        return self.lr * (self.final_lr + (1 - self.final_lr) * cosine)


def step_generator(seed: int, step: int) -> torch.Generator:
    """The randomness of one step: it depends on nothing but the seed and the step's number."""
    return torch.Generator().manual_seed((seed << 32) + step)


def train(
    module: nn.Module,
    loss_of: Callable[[int], Tensor],
    plan: Plan,
    folder: Path,
    on_save: Callable[[int, dict[str, Tensor]], None] | None = None,
) -> dict[str, Tensor]:
    """Train the module until `plan.steps` and return its averaged parameters.

    State goes to `folder/state.pt` every `plan.every` steps and a line a save to `folder/log.csv`;
    called again, training continues there. `on_save` gets the step and the averaged parameters.
    Inside `run_in_parallel` the gradients are averaged and the first process alone writes.

    Raises: OutOfTime when the plan's deadline passes; FloatingPointError when the loss is not
    finite.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=plan.lr, betas=(0.9, 0.99), weight_decay=plan.weight_decay, fused=True
    )
    average = [p.detach().clone() for p in parameters]
    names = [n for n, p in module.named_parameters() if p.requires_grad]
    step, spent = _restore(folder / "state.pt", module, optimizer, average)
    started, losses = time.monotonic() - spent, []
    module.train()
    while step < plan.steps:
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate(step)
        loss = loss_of(step)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the loss of step {step} is {loss.item()}; delete {folder} or lower the "
                "learning rate"
            )
        loss.backward()
        late = plan.deadline is not None and time.monotonic() > plan.deadline
        late = average_gradients(parameters, late)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        losses.append(loss.item())
        # Early averages follow the weights faster, so that short runs are usable too.
        decay = min(plan.ema, (1 + step) / (10 + step))
        torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - decay)
        if rank() == 0 and (step % plan.every == 0 or step == plan.steps or late):
            spent = time.monotonic() - started
            _save(folder / "state.pt", module, optimizer, average, step, spent)
            _log(folder / "log.csv", step, sum(losses) / len(losses), plan, spent)
            losses = []
            if on_save is not None:
                on_save(step, dict(zip(names, average, strict=True)))
        if late and step < plan.steps:
            raise OutOfTime(f"stopped at step {step} of {plan.steps} in {folder}")
    return dict(zip(names, average, strict=True))


def _restore(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, average: list[Tensor]
) -> tuple[int, float]:
    if not path.exists():
        return 0, 0.0
    state = torch.load(path, map_location="cpu", weights_only=True)
    module.load_state_dict(state["module"])
    optimizer.load_state_dict(state["optimizer"])
    for kept, saved in zip(average, state["average"], strict=True):
        kept.copy_(saved)
    LOGGER.info("continuing from step %d of %s", state["step"], path)
    return state["step"], state["seconds"]


def _save(
    path: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: list[Tensor],
    step: int,
    seconds: float,
) -> None:
    state = {
        "module": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": average,
        "step": step,
        "seconds": seconds,
    }
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def _log(path: Path, step: int, loss: float, plan: Plan, seconds: float) -> None:
    LOGGER.info("step %d/%d, loss %.4f, %.2f s/step", step, plan.steps, loss, seconds / step)
    new = not path.exists()
    with path.open("a", newline="") as stream:
        writer = csv.writer(stream)
        if new:
            writer.writerow(["step", "loss", "lr", "seconds"])
        writer.writerow(
            [step, f"{loss:.5f}", f"{plan.learning_rate(step - 1):.3g}", f"{seconds:.1f}"]
        )
