from pathlib import Path

import pytest
import torch
from torch import nn

from didgen.tiny.loop import OutOfTime, Plan, train
from didgen.tiny.parallel import average_gradients, rank, run_in_parallel, size


def test_a_single_process_keeps_its_gradients_and_its_flag():
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([1.0, 2.0])
    assert (rank(), size()) == (0, 1)
    assert average_gradients([weight], False) is False
    assert average_gradients([weight], True) is True
    assert weight.grad.tolist() == [1.0, 2.0]


def test_one_process_is_the_calling_one():
    called = []
    run_in_parallel(1, called.append, "here")
    assert called == ["here"]


def average_in_each(folder: str) -> None:
    weight = nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([1.0, 10.0]) * (rank() + 1)
    raised = average_gradients([weight], flag=rank() == 1)
    (Path(folder) / f"{rank()}.txt").write_text(f"{weight.grad.tolist()} {raised}")


def train_in_each(folder: str) -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    # Opposite pulls in the two processes: on average there is none.
    train(module, lambda step: module.weight.sum() * (1 - 2 * rank()), Plan(3, lr=1.0), folder)
    (folder / f"{rank()}.txt").write_text(str(module.weight.item()))


def stop_in_each() -> None:
    raise OutOfTime(f"stopped in {size()} processes")


@pytest.mark.slow
def test_what_a_process_raises_is_raised_here():
    with pytest.raises(OutOfTime, match="in 2 processes"):
        run_in_parallel(2, stop_in_each)


@pytest.mark.slow
def test_two_processes_share_gradients_and_flags(tmp_path):
    run_in_parallel(2, average_in_each, str(tmp_path))
    texts = {path.read_text() for path in tmp_path.iterdir()}
    assert texts == {"[1.5, 15.0] True"}


@pytest.mark.slow
def test_two_processes_train_one_model_and_one_writes(tmp_path):
    run_in_parallel(2, train_in_each, tmp_path)
    assert {(tmp_path / f"{k}.txt").read_text() for k in (0, 1)} == {"0.0"}
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 2
