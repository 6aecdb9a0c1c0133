"""Less memory for a graph through a UNet: what is cheap to compute again is not kept."""

import contextlib
from collections.abc import Iterator
from functools import partial

from diffusers.models.attention import FeedForward
from torch import nn
from torch.utils.checkpoint import checkpoint


@contextlib.contextmanager
def recomputed_feed_forwards(unet: nn.Module) -> Iterator[None]:
    """Within the context, the backward pass computes feed-forward layers again.

    Their hidden values, eight times as wide as the layer's input, are the most of what a graph
    through a transformer block keeps, and cost little: two products out of a block's twelve. No
    query or key lies in them, so a recorder sees each once. Outputs and gradients are the same
    to the bit. Not for layers with dropout in training mode, whose draws would differ.
    """
    layers = [module for module in unet.modules() if isinstance(module, FeedForward)]
    for layer in layers:
        layer.forward = partial(
            checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False
        )
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
