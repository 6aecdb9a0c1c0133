"""Memory that runs out is told with what needs less; other errors stay what they are."""

import pytest
import torch

from didgen.runtime.memory import OutOfMemory, explain_no_memory, peak_memory


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        MemoryError(),
    ],
)
def test_memory_that_runs_out_is_explained(error):
    with (
        pytest.raises(OutOfMemory, match="out of memory .*Buy more.$"),
        explain_no_memory("Buy more."),
    ):
        raise error


def test_an_error_without_words_is_named():
    told = r"out of memory \(MemoryError\). Buy more.$"
    with pytest.raises(OutOfMemory, match=told), explain_no_memory("Buy more."):
        raise MemoryError


def test_other_errors_pass_as_they_are():
    with pytest.raises(RuntimeError, match="shape"), explain_no_memory("Buy more."):
        raise RuntimeError("shape mismatch")


def test_the_peak_is_that_of_this_process():
    before = peak_memory()
    kept = bytearray(300_000_000)
    assert peak_memory() >= 0.3 and peak_memory() >= before
    del kept
