import os

import pytest
import torch

from didgen.runtime.reproducible import (
    NoDeterministicKernel,
    deterministic_kernels,
    reproducible,
    strict_kernels,
)


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


def test_a_pass_and_its_gradient_are_held_to_it_strictly():
    """What is only warned of, PyTorch allows its fused attention to do."""
    with deterministic_kernels("cuda"):
        lenient = state()
        with pytest.raises(KeyboardInterrupt), strict_kernels():
            assert (state()[1], state()[2]) == (True, False)
            raise KeyboardInterrupt
        assert state() == lenient


def test_where_kernels_may_vary_nothing_is_held():
    before = state()
    with strict_kernels():
        assert state() == before


def test_an_operation_that_never_repeats_is_named_and_other_errors_pass():
    with deterministic_kernels("cuda"):
        told = "put_.*set `deterministic: false`"
        with pytest.raises(NoDeterministicKernel, match=told), strict_kernels():
            torch.zeros(3).put_(torch.tensor([0]), torch.ones(1))
        with pytest.raises(RuntimeError, match="shape"), strict_kernels():
            raise RuntimeError("another shape")
