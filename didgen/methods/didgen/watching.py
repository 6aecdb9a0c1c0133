"""Watching a fine-tuning: a line of progress, a CSV that grows, TensorBoard, validation."""

import logging
import math
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from didgen.methods.didgen.checkpoint import StepLoss
from didgen.runtime.files import read_json, write_json
from didgen.settings import extras

LOGGER = logging.getLogger(__name__)
# Seconds between lines in a log, and steps that a line's losses are the mean of.
_EVERY, _RECENT = 10.0, 25


class NonFiniteValidation(ValueError):
    """A validation gave NaN or an infinite number; the last saved state is kept."""


# Of a step: numbers by name, among them "step".
Validate = Callable[[int], dict[str, float]]


def validation_steps(steps: int, every: int) -> list[int]:
    """The steps after which to validate: before the first, every so many, and after the last."""
    return sorted({0, *range(every, steps + 1, every), steps})


class Watch:
    """Tells how a training goes; writes `log.csv`, `validation.json` and TensorBoard files.

    `validate` is called with the UNet in evaluation mode, before the first step, every
    `validate_every` steps and after the last. `folder` may hold the files of the interrupted run
    that this one continues.
    """

    def __init__(
        self,
        folder: Path,
        steps: int,
        validate: Validate | None = None,
        validate_every: int = 1,
        tensorboard: bool = False,
    ) -> None:
        self.folder, self.steps, self.validate = folder, steps, validate
        self._due = set(validation_steps(steps, validate_every)) if validate else set()
        self.validations: list[dict[str, float]] = []
        self._tensorboard = tensorboard
        self._writer: Any = None
        self._file: Any = None
        self._bar: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for opened in (self._file, self._writer, self._bar):
            if opened is not None:
                opened.close()

    def begin(self, curve: Sequence[StepLoss], unet: nn.Module) -> None:
        """Take up what was written of the steps of `curve` and drop what went beyond them.

        Raises: MissingExtra when TensorBoard is asked for and not installed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._open_writer(len(curve))
        self._file = (self.folder / "log.csv").open("w", encoding="utf-8")
        print(",".join(field.name for field in fields(StepLoss)), file=self._file)
        for entry in curve:
            self._row(entry)
        kept = self.folder / "validation.json"
        if self.validate and kept.is_file():
            self.validations = [row for row in read_json(kept) if row["step"] <= len(curve)]
        self._started = self._told = time.monotonic()
        self._first = len(curve)
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=self.steps, initial=len(curve), desc="finetune", leave=False)
        if not curve and self.due(0):
            self.look(0, unet)

    def step(self, curve: Sequence[StepLoss]) -> None:
        """Record the curve's last step."""
        entry = curve[-1]
        self._row(entry)
        if self._writer is not None:
            for name, value in asdict(entry).items():
                if name not in ("step", "seconds"):
                    self._writer.add_scalar(f"training/{name}", value, entry.step)
        if self._bar is not None:
            self._bar.set_postfix_str(losses(curve[-_RECENT:]))
            self._bar.update()
        elif time.monotonic() - self._told >= _EVERY or entry.step == self.steps:
            self._told = time.monotonic()
            done = entry.step - self._first
            LOGGER.info(progress(entry.step, self.steps, done, self._told - self._started, curve))

    def _row(self, entry: StepLoss) -> None:
        print(",".join(map(str, asdict(entry).values())), file=self._file, flush=True)

    def due(self, step: int) -> bool:
        """Whether a validation is due after this step."""
        return step in self._due and all(row["step"] != step for row in self.validations)

    def look(self, step: int, unet: nn.Module) -> None:
        """Validate with the weights that the UNet has now. Raises: NonFiniteValidation."""
        started = time.monotonic()
        training = unet.training
        unet.eval()
        row = {"step": step, **self.validate(step)}
        unet.train(training)
        broken = [name for name, value in row.items() if not math.isfinite(value)]
        if broken:
            raise NonFiniteValidation(
                f"validation after step {step}: found {', '.join(broken)} not finite; the last "
                "saved state is kept. At step 0 the backbone's own weights are broken: fetch it "
                "again; later, lower finetune.learning_rate and delete the state to start anew"
            )
        self.validations.append(row)
        write_json(self.folder / "validation.json", self.validations)
        told = ", ".join(f"{name} {value:.4f}" for name, value in row.items() if name != "step")
        LOGGER.info("validation after step %d: %s (%.1f s)", step, told, time.monotonic() - started)
        if self._writer is not None:
            for name, value in row.items():
                self._writer.add_scalar(f"validation/{name}", value, step)

    def _open_writer(self, done: int) -> None:
        if not self._tensorboard:
            return
        extras.require("tensorboard", "finetune.tensorboard: true")
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=done + 1)


def losses(recent: Sequence[StepLoss]) -> str:
    """The mean losses of some steps and the most memory used, in words."""
    loss, rec, attn = (
        sum(getattr(entry, key) for entry in recent) / len(recent)
        for key in ("loss", "loss_rec", "loss_attn")
    )
    return f"loss {loss:.4f}, rec {rec:.4f}, attn {attn:.4f}, {memory():.1f} GB"


def progress(step: int, steps: int, done: int, seconds: float, curve: Sequence[StepLoss]) -> str:
    """A line: step, rate and time left by the `done` steps of this run, mean losses, memory."""
    rate = done / seconds if seconds > 0 else 0.0
    left = (steps - step) / rate if rate else 0.0
    pace = f"{rate:.2f} steps/s" if rate >= 1 else f"{1 / rate:.2f} s/step" if rate else "-"
    time_left = f"{left:.0f} s left" if left < 120 else f"{left / 60:.0f} min left"
    return f"step {step}/{steps}, {pace}, {time_left}: {losses(curve[-_RECENT:])}"


def memory() -> float:
    """The most memory that was in use so far, GB: of the GPU where there is one, else of the
    process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
