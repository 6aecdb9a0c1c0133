"""The progress of a training, for people: log lines, a CSV that grows, a tracker's charts."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from didgen.runtime.memory import peak_memory
from didgen.runtime.progress import Progress
from didgen.settings import extras
from didgen.training.state import Row

LOGGER = logging.getLogger(__name__)
PROJECT = "didgen"
# Steps that the losses of a line of progress are the mean of.
_RECENT = 25


class TrackerError(ValueError):
    """A tracker cannot be started."""


class Log:
    """Reports a training's progress; a context: first `begin`, then `step` after each step.

    label: the training's name in lines. folder: for `log.csv` and the files of TensorBoard or
    Weights & Biases; None: no files. every: steps that a row of `log.csv` stands for, losses are
    their means; None: no `log.csv`. report_to: "none" or a tracker. run: its name there, the same
    when the training continues.

    Raises: MissingExtra.
    """

    def __init__(
        self,
        label: str,
        folder: Path | None = None,
        *,
        every: int | None = None,
        report_to: str,
        run: str | None = None,
    ) -> None:
        if report_to != "none":
            extras.require(report_to, f"report_to: {report_to}")
        self.label, self.folder, self.every = label, folder, every
        self.report_to, self.run = report_to, run
        self._tracker: Any = None
        self._file: Any = None
        self._progress: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()
        if self._tracker is not None:
            self._tracker.finish()
        if self._progress is not None:
            self._progress.__exit__(*error)

    def begin(self, history: Sequence[Row], steps: int) -> None:
        """Take up a training of which `history` is done; what was written beyond that is dropped.

        Raises: TrackerError.
        """
        self._steps = steps
        if self.folder is not None and self.every is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = (self.folder / "log.csv").open("w", encoding="utf-8")
            for done in range(1, len(history) + 1):
                self._write(history[max(0, done - self.every) : done], self.every)
        if self.report_to != "none":
            self._tracker = self._start_tracker(len(history))
        self._progress = Progress(self.label, steps, len(history))

    def step(self, history: Sequence[Row]) -> None:
        """Record the history's last step."""
        if self._file is not None and self.every is not None:
            self._write(history[-self.every :], self.every)
        self._report("training", history[-1])
        if self._progress is not None:
            self._progress.advance(lambda: _summary(history))

    def evaluation(self, values: Row) -> None:
        """Record what was measured after the step `values["step"]`."""
        text = ", ".join(f"{name} {value:.4f}" for name, value in values.items() if name != "step")
        LOGGER.info("after step %d: %s", values["step"], text)
        self._report("validation", values)

    def _write(self, rows: Sequence[Row], every: int) -> None:
        """A line of the CSV, where one is due: `rows` are the last ones, at most `every`."""
        step = int(rows[-1]["step"])
        if step % every and step != self._steps:
            return
        if self._file.tell() == 0:
            print(",".join(rows[-1]), file=self._file)
        values = rows[-1] | _mean_losses(rows[-((step - 1) % every + 1) :])
        print(",".join(map(str, values.values())), file=self._file, flush=True)

    def _report(self, part: str, row: Row) -> None:
        if self._tracker is not None:
            numbers = {k: v for k, v in row.items() if k not in ("step", "seconds")}
            self._tracker.log({f"{part}/{k}": v for k, v in numbers.items()}, step=row["step"])

    def _start_tracker(self, done: int) -> Any:
        """A tracker of accelerate, for this process alone; it continues its run where it can."""
        from accelerate import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        PartialState()  # accelerate's own logging asks for it
        folder, name = self.folder or Path(), self.run or self.label
        options: dict[str, dict[str, Any]] = {
            "tensorboard": {"logging_dir": folder, "purge_step": done + 1},
            "wandb": {"name": name, "dir": str(folder), "id": self.run, "resume": "allow"},
            "mlflow": {"run_name": name},
            "trackio": {"name": name, "resume": "allow"},
        }
        # TensorBoard's is the name of a folder.
        project = "tensorboard" if self.report_to == "tensorboard" else PROJECT
        tracker = LOGGER_TYPE_TO_CLASS[self.report_to](project, **options[self.report_to])
        tracker.main_process_only = False  # only one process has a log
        try:
            tracker.start()
        # Each has errors of its own: no key, no network, no server.
        except Exception as error:
            raise TrackerError(
                f"report_to: {self.report_to} cannot be started ({error}); see its documentation, "
                "or set report_to: none"
            ) from error
        return tracker


def _mean_losses(rows: Sequence[Row]) -> Row:
    return {
        name: sum(row[name] for row in rows) / len(rows)
        for name in rows[-1]
        if name.startswith("loss")
    }


def _summary(history: Sequence[Row]) -> str:
    """The mean losses of the last steps and the most memory used, in words."""
    losses = _mean_losses(history[-_RECENT:]).items()
    return ", ".join(f"{name} {value:.4f}" for name, value in losses) + f", {peak_memory():.1f} GB"
