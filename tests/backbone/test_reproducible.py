import os

import pytest
import torch

from didgen.backbone.reproducible import deterministic_kernels, reproducible


def state():
    return (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
    )


@pytest.fixture(autouse=True)
def two_threads(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def test_a_processor_works_with_one_thread():
    before = state()
    with pytest.raises(KeyboardInterrupt), reproducible("cpu"):
        assert state() == (1, *before[1:])
        raise KeyboardInterrupt
    assert state() == before
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ


def test_a_gpu_gets_kernels_that_repeat():
    before = state()
    with reproducible(torch.device("cuda", 1)):
        assert state() == (2, True, True, False, True, False)
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert state() == before


def test_training_on_a_processor_keeps_its_threads():
    before = state()
    with deterministic_kernels("cpu"):
        assert state() == before
