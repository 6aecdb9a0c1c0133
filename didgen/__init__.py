"""DiDGen: diffusion-based dual-task synthesis of dermoscopic data, and the verdict on its use."""

from typing import Any

__version__ = "0.2.0"

_API = {
    *("AttentionRecorder", "load", "make_pairs", "read_masks", "record_attention"),
    *("region_loss", "sample"),
}


def __getattr__(name: str) -> Any:
    """The functions of `didgen.api`, imported on use: command line and rules need no PyTorch."""
    if name not in _API:
        raise AttributeError(f"module 'didgen' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("didgen.api"), name)
