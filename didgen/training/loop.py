"""The loop behind every training: resumed step by step, saved, evaluated, ended by SIGTERM.

Each training brings its own step: a function of the step's number that updates its networks
(`optimization.update`), with one optimiser or several, and returns the losses. All that it draws
must follow from a seed and that number; then a resumed training repeats the undisturbed one.
"""

import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path

from didgen.training.log import Log
from didgen.training.optimization import NonFiniteLoss
from didgen.training.processes import ALONE, Team, on_sigterm
from didgen.training.state import Parts, Row, save_state

LOGGER = logging.getLogger(__name__)


class TrainingStopped(SystemExit):
    """Training was asked to end (SIGTERM); its state is saved and the same command continues."""


class OutOfTime(Exception):
    """The time limit was reached; the state was saved and the same command continues from it."""


def never(step: int) -> bool:
    """No step."""
    return False


def run_steps(
    step: Callable[[int], Row],
    parts: Parts,
    history: list[Row],
    steps: int,
    folder: Path | None,
    *,
    save_due: Callable[[int], bool],
    advice: str,
    log: Log | None = None,
    evaluate: Callable[[int], bool | None] = never,
    evaluation_due: Callable[[int], bool] = never,
    team: Team = ALONE,
    deadline: float | None = None,
) -> None:
    """Train from the end of the history up to `steps`, and add a row for each step to it.

    step: gets the number of steps done. parts: what it changes, and a saved state therefore holds.
    history: what `resume_state` gave. folder: for the state, of this training alone; None: nothing
    is saved.
    save_due: whether to save after so many steps; it is also saved when asked to stop. evaluate:
    gets the number of steps done; True ends the training. evaluation_due: whether to evaluate
    after so many steps; asked too before the first step of this run, for a kill may have prevented
    it. log: only one process of a team has one. advice: what to do about losses that are not
    finite. deadline: of `time.monotonic`.

    Raises: NonFiniteLoss, TrackerError; TrainingStopped after SIGTERM and OutOfTime after the
    deadline, both with the state saved.
    """
    started = time.monotonic() - (history[-1]["seconds"] if history else 0.0)
    signals: list[int] = []
    with on_sigterm(lambda number, _: signals.append(number)), log or contextlib.nullcontext():
        if log is not None:
            log.begin(history, steps)
        ended = False
        if team.any(evaluation_due(len(history)))[0]:
            ended = team.any(bool(evaluate(len(history))))[0]
        while len(history) < steps and not ended:
            try:
                row = step(len(history))
            except NonFiniteLoss as error:
                raise NonFiniteLoss(
                    f"step {len(history) + 1}: {error}; the last saved state is kept. {advice}"
                ) from None
            done = len(history) + 1
            seconds = round(time.monotonic() - started, 2)
            history.append({"step": done, **row, "seconds": seconds})
            late = deadline is not None and time.monotonic() > deadline
            stop, late, save, look = team.any(
                bool(signals), late, save_due(done), evaluation_due(done)
            )
            stop, late = stop and done < steps, late and done < steps
            # Before an evaluation, which may take longer than the grace between SIGTERM and
            # SIGKILL.
            if folder is not None and (save or stop or late) and (team.rank == 0 or team.sharded):
                save_state(parts, history, folder, writes=team.rank == 0)
            if log is not None:
                log.step(history)
            if look and not stop:
                ended = team.any(bool(evaluate(done)))[0]
            if (stop or late) and not ended:
                # No process leaves before the first has saved: the end of one ends the others.
                team.wait()
                if late:
                    raise OutOfTime(f"stopped after step {done} of {steps}")
                kept = "stopped" if folder is None else "saved"
                LOGGER.warning("asked to end: %s after step %d of %d", kept, done, steps)
                raise TrainingStopped(143)
