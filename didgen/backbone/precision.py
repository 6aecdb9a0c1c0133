"""Where a network runs and in which arithmetic: bfloat16 where it is quicker, else float32."""

import os
from typing import Literal

import torch

from didgen.backbone.devices import lease_gpus

Precision = Literal["auto", "float32", "bfloat16"]


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
    """Resolve "auto": bfloat16 on GPUs and processors that have it built in, else float32."""
    if wanted != "auto":
        return wanted
    if torch.device(device).type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    return "bfloat16" if torch.cpu._is_avx512_bf16_supported() else "float32"


def autocast(device: str | torch.device, precision: str) -> torch.autocast:
    """A context in which matrix products run in the resolved precision; weights stay float32."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=precision == "bfloat16")
