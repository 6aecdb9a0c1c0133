"""Where a network runs and in which arithmetic: bfloat16 where it is quicker, else float32."""

import os
from typing import Literal

import torch
from torch import nn

from didgen.runtime.devices import lease_gpus

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
        # Older GPUs emulate bfloat16, which is slower than single precision.
        built_in = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bfloat16" if built_in else "float32"
    return "bfloat16" if torch.cpu._is_avx512_bf16_supported() else "float32"


def autocast(device: str | torch.device, precision: str) -> torch.autocast:
    """A context in which matrix products run in the resolved precision; weights stay float32."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=precision == "bfloat16")


def keep_products_in_half(unet: nn.Module) -> None:
    """Convert, in place, the weights that `autocast` would convert for every product anyway.

    For a UNet that from now on only samples, in bfloat16 and under `autocast`: its output stays
    the same to the bit, the weights take half the memory, and a graph through it keeps no
    converted copies of them. The first convolution stays in float32, because a UNet's number type,
    which latents follow, is read from its first weights; so do norms, which want the range.
    """
    for name, module in unet.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and name != "conv_in":
            module.to(torch.bfloat16)
