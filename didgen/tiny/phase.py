"""A phase of the tiny backbone's pretraining: one network, resumable, its weights averaged."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from didgen.training.log import Log
from didgen.training.loop import run_steps
from didgen.training.optimization import Average, update, warm_up_and_cosine
from didgen.training.processes import ALONE, Team, spawn
from didgen.training.state import Row, resume_state

Averages = dict[str, Tensor]


@dataclass(frozen=True)
class Phase:
    """How long and how fast to train.

    steps: optimiser steps. lr: peak learning rate, reached after `warmup` steps, then a cosine
    down to `final_lr` times it. ema: decay of the averaged weights. every: steps between saves.
    deadline: `time.monotonic()` value at which to stop, or None. report_to: as of `Log`.
    """

    steps: int
    lr: float
    report_to: str
    warmup: int = 100
    final_lr: float = 0.02
    ema: float = 0.999
    every: int = 200
    deadline: float | None = None


def step_generator(seed: int, step: int) -> torch.Generator:
    """The randomness of one step: it depends on nothing but the seed and the step's number."""
    return torch.Generator().manual_seed((seed << 32) + step)


def train_phase(
    module: nn.Module,
    loss_of: Callable[[int], Tensor],
    phase: Phase,
    folder: Path,
    team: Team = ALONE,
    evaluate: Callable[[int, Averages], None] | None = None,
    evaluation_due: Callable[[int], bool] | None = None,
) -> Averages:
    """Train the module until `phase.steps` and return its averaged parameters.

    loss_of: the loss of a step, counted from 0, on this process's part of its batch. State and
    `log.csv`, a row a save, go to `folder`; called again, training continues there. `evaluate` gets
    the number of steps done and the averaged parameters, whenever `evaluation_due`; without this,
    after each save. The first process of a team alone evaluates and writes.

    Raises: as `run_steps`.
    """
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    parameters = list(named.values())
    optimizer = torch.optim.AdamW(
        parameters, lr=phase.lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True
    )
    average = Average(parameters, phase.ema)
    averages = dict(zip(named, average.values, strict=True))
    parts = {"module": module, "optimizer": optimizer, "average": average}
    history = resume_state(parts, folder, phase.steps)
    module.train()

    def step(number: int) -> Row:
        loss = loss_of(number)
        loss.backward()
        team.average_gradients(parameters)
        share = warm_up_and_cosine(number, phase.steps, phase.warmup, phase.final_lr)
        row = update(optimizer, {"loss": loss}, learning_rate=phase.lr * share, max_norm=1.0)
        average.update(number + 1)
        return row

    def save_due(done: int) -> bool:
        return done % phase.every == 0 or done == phase.steps

    first = team.rank == 0
    log = Log(folder.name, folder, every=phase.every, report_to=phase.report_to)
    looks = evaluate if first else None
    run_steps(
        step, parts, history, phase.steps, folder,
        save_due=save_due,
        advice=f"Delete {folder} or lower the learning rate",
        log=log if first else None,
        evaluate=lambda done: looks(done, averages) if looks else None,
        evaluation_due=lambda done: bool(looks) and done > 0 and (evaluation_due or save_due)(done),
        team=team,
        deadline=phase.deadline,
    )  # fmt: skip
    return averages


def in_parallel(count: int, function: Callable[..., None], *arguments: Any) -> None:
    """Call a function with the same arguments in `count` processes; a single one is this one.

    On few cores that are shared with other work this beats threads: processes wait for each other
    once a step, threads at every layer. Raises: what the function raises.
    """
    if count == 1:
        function(*arguments)
    else:
        spawn("pretrain-tiny", count, function, *arguments)
