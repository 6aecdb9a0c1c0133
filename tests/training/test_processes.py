"""Processes that train together: gradients and flags are shared, errors and signals passed on."""

import os
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from didgen.training.loop import OutOfTime, TrainingStopped
from didgen.training.processes import ALONE, joined, spawn


def test_alone_everything_stays_as_it_is():
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([1.0, 2.0])
    assert (ALONE.rank, ALONE.size, ALONE.sharded) == (0, 1, False)
    ALONE.average_gradients([weight])
    assert weight.grad.tolist() == [1.0, 2.0]
    assert ALONE.any(False, True) == [False, True]
    assert ALONE.wrap(nn.Linear(1, 1), ["Linear"]).weight.shape == (1, 1)


def share(folder: str) -> None:
    with joined(cpu=True) as team:
        weight, without = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(3))
        weight.grad = torch.tensor([1.0, 10.0]) * (team.rank + 1)
        team.average_gradients([without, weight])
        flags = team.any(team.rank == 1, False)
        text = f"{weight.grad.tolist()} {without.grad} {flags} {team.size}"
        (Path(folder) / f"{team.rank}.txt").write_text(text)


def run_out_of_time() -> None:
    with joined(cpu=True) as team:
        team.wait()
        raise OutOfTime(f"stopped in {team.size} processes")


def end_when_asked(folder: str) -> None:
    with joined(cpu=True) as team:
        (Path(folder) / str(os.getpid())).touch()
        team.wait()
        try:
            signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(TrainingStopped(143)))
            team.wait()
            if team.rank == 0:
                os.kill(os.getppid(), signal.SIGTERM)
            signal.pause()
        finally:
            (Path(folder) / str(os.getpid())).unlink()


@pytest.mark.slow
def test_two_processes_share_gradients_and_flags(tmp_path):
    spawn("test", 2, share, str(tmp_path))
    texts = {path.read_text() for path in tmp_path.iterdir()}
    assert texts == {"[1.5, 15.0] None [True, False] 2"}


@pytest.mark.slow
def test_what_a_process_raises_is_raised_here():
    with pytest.raises(OutOfTime, match="in 2 processes"):
        spawn("test", 2, run_out_of_time)


@pytest.mark.slow
def test_sigterm_is_handed_on_and_ends_with_the_processes_code(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped:
        spawn("test", 2, end_when_asked, str(tmp_path))
    assert stopped.value.code == 143 and signal.getsignal(signal.SIGTERM) is before
