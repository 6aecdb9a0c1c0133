"""Processor time and peak memory of one call, for ratios within one run."""

import ctypes
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

GIGABYTE = 1024**3


def now(device: torch.device) -> float:
    """Processor seconds of this process, all threads; on a GPU wall-clock seconds."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


@dataclass
class Clock:
    """Seconds of each sampling step and of what comes after; call it when a step ends."""

    device: torch.device
    steps: list[float] = field(default_factory=list)
    rest: float = 0.0
    _last: float = 0.0

    def start(self) -> None:
        """Begin the first step."""
        self.steps, self._last = [], now(self.device)

    def __call__(self, *_: object) -> None:
        """A step has ended."""
        moment = now(self.device)
        self.steps.append(moment - self._last)
        self._last = moment

    def stop(self) -> None:
        """All has ended."""
        self.rest = now(self.device) - self._last


def resident() -> int:
    """Bytes of memory of this process, after giving back what is free."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return _status("VmRSS")


def peak_over(base: int, call: Callable[[], object], device: torch.device) -> float:
    """Largest memory during the call in GB, over `base` bytes (on a GPU: over what is in use)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        base = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - base) / GIGABYTE
    resident()
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    call()
    return (_status("VmHWM") - base) / GIGABYTE


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {name}; peak memory is measured on Linux only")
