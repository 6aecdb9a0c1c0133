"""Less memory for a graph through a UNet: what is cheap to compute again is not kept."""

import contextlib
from collections.abc import Iterable, Iterator
from functools import partial

from diffusers.models.attention import BasicTransformerBlock
from torch import nn
from torch.utils.checkpoint import checkpoint


@contextlib.contextmanager
def recomputed_blocks(unet: nn.Module, read: Iterable[str]) -> Iterator[None]:
    """Within the context, the backward pass computes parts of transformer blocks again.

    `read`: names of the attention layers that are recorded. Of their blocks it is the feed-forward
    layer alone, so that queries and keys are seen once: its hidden values, eight times as wide as
    its input, are the most of what a block keeps, and cost two products of twelve. Other blocks
    are computed again as a whole; in Stable Diffusion these are the two at 64x64, a twelfth of a
    pass. Outputs and gradients are the same to the bit. Not for dropout in training mode, whose
    draws would differ.
    """
    names = list(read)
    parts = []
    for name, module in unet.named_modules():
        if isinstance(module, BasicTransformerBlock):
            is_read = any(layer.startswith(f"{name}.") for layer in names)
            parts.append(module.ff if is_read else module)
    for part in parts:
        part.forward = partial(
            checkpoint, part.forward, use_reentrant=False, preserve_rng_state=False
        )
    try:
        yield
    finally:
        for part in parts:
            del part.forward
