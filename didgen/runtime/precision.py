"""Where a network runs and in which arithmetic: bfloat16 where it is quicker, else float32."""

import functools
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from didgen.runtime.devices import lease_gpus
from didgen.runtime.files import read_json, write_json
from didgen.runtime.locks import sole_writer
from didgen.settings.base import Precision

LOGGER = logging.getLogger(__name__)
# A file that keeps the choice of a whole run, so that all its jobs and resumed ones share it.
RUN_FILE = "DIDGEN_PRECISION_FILE"
# bfloat16 has to save this share of the time; less may be noise, and float32 is the safer one.
WORTH = 0.05
# Seconds to time for: beside other work, the least of many times is the most reliable.
TRIAL = 1.5


def default_device() -> torch.device:
    """A GPU where there is one, else the processor.

    A GPU that no other job holds (`devices`), or, of several processes that work together, the one
    with this process's number.
    """
    if torch.backends.cuda.is_built():
        lease_gpus()  # before CUDA starts
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def pick_precision(wanted: Precision, device: str | torch.device) -> str:
    """Resolve "auto": bfloat16 on GPUs that have it built in, on processors where it is quicker.

    A processor is timed once (a second or two). The choice is kept in the user's cache, by
    processor and version of PyTorch, and for a whole run in the file that the environment variable
    `DIDGEN_PRECISION_FILE` names.
    """
    if wanted != "auto":
        return wanted
    if torch.device(device).type == "cuda":
        # Older GPUs emulate bfloat16, which is slower than single precision.
        built_in = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bfloat16" if built_in else "float32"
    name = os.environ.get(RUN_FILE)
    choice = kept(Path(name), measured_choice) if name else measured_choice()
    return choice["precision"]


def kept(path: Path, choose: Callable[[], dict]) -> dict:
    """What a JSON file keeps, or, where there is none yet, what `choose` gives, written to it.

    Of several processes one chooses. Where nothing can be written, or the file cannot be read, the
    choice is made again each time, with a warning.
    """
    try:
        with sole_writer(path.parent):
            if not path.is_file():
                write_json(path, choose())
            record = read_json(path)
            if record["precision"] not in ("float32", "bfloat16"):
                raise ValueError(f"found {record['precision']!r}, expected float32 or bfloat16")
            return record
    except (OSError, ValueError, LookupError, TypeError) as error:
        LOGGER.warning("%s cannot be used (%s): arithmetic is timed anew", path, error)
        return choose()


@functools.cache
def measured_choice() -> dict:
    """The quicker arithmetic of this processor and how it was chosen, from the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "didgen/precision"
    name = f"{processor()} torch-{torch.__version__}.json"
    choice = kept(cache / name.replace("/", "-"), measure)
    LOGGER.info("arithmetic: %s (%s)", choice["precision"], choice["reason"])
    return choice


def processor() -> str:
    """The processor's name, as the kernel gives it."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return os.uname().machine


def measure() -> dict:
    """Time a small network in both arithmetics, turn by turn, and choose.

    On one thread: several wait for each other beside other work, and say little then. Returns
    precision, reason and the least times in seconds.
    """
    if not torch.cpu._is_avx512_bf16_supported():
        return {"precision": "float32", "reason": "the processor has no bfloat16"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network, images = _Block(128), torch.randn(4, 128, 16, 16)
    seconds: dict[str, float] = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        end = time.perf_counter() + TRIAL
        while not seconds or time.perf_counter() < end:
            for precision in ("float32", "bfloat16"):
                start = time.perf_counter()
                with autocast("cpu", precision):
                    network(images).float().square().mean().backward()
                taken = time.perf_counter() - start
                seconds[precision] = min(taken, seconds.get(precision, taken))
    finally:
        torch.set_num_threads(threads)
    ratio = seconds["bfloat16"] / seconds["float32"]
    return {
        "precision": "bfloat16" if ratio < 1 - WORTH else "float32",
        "reason": f"here bfloat16 takes {ratio:.2f} times as long as float32",
        "seconds": seconds,
    }


class _Block(nn.Module):
    """What our networks spend their time on: a convolution, attention, a feed-forward layer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Sequential(
            nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1)
        )
        self.norm = nn.LayerNorm(channels)
        self.attention = nn.Linear(channels, 3 * channels)
        self.feed_forward = nn.Sequential(
            nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels)
        )

    def forward(self, images: Tensor) -> Tensor:
        images = images + self.convolution(images)
        tokens = images.flatten(2).transpose(1, 2)
        heads = self.attention(self.norm(tokens)).unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4)
        tokens = tokens + F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        return (tokens + self.feed_forward(tokens)).transpose(1, 2).unflatten(2, images.shape[2:])


def autocast(device: str | torch.device, precision: str) -> torch.autocast:
    """A context in which matrix products run in the resolved precision; weights stay float32."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=precision == "bfloat16")
