"""Weights, gradients and optimiser state spread over processes (FSDP, Zhao et al. 2023).

What is sharded is a copy of the UNet: the UNet itself stays whole on every process, so that maps,
samples and checkpoints need no other process, and is brought up to date where they are made. A
process then holds the weights twice, but of the optimiser's state, the largest part, its share.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

BLOCKS = ("ResnetBlock2D", "BasicTransformerBlock")


def shard(unet: nn.Module) -> nn.Module:
    """A copy of the UNet whose parameters are spread over the processes of the default group.

    Layers stay whole from a block's forward pass to its backward pass: the attention maps that
    hooks record are part of the graph and need the weights for as long as it lives.
    """
    # Imported where it is needed: it takes half a second, and most trainings have one process.
    from torch.distributed.fsdp import fully_shard

    module = copy.deepcopy(unet)
    for block in module.modules():
        if type(block).__name__ in BLOCKS:
            fully_shard(block, reshard_after_forward=False)
    return fully_shard(module, reshard_after_forward=False)


def whole(value: Tensor) -> Tensor:
    """A tensor in full; of a sharded one every process must ask at the same time."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def alike(value: Tensor, example: Tensor) -> Tensor:
    """A full tensor, spread as the example is; every process must ask at the same time."""
    if not isinstance(example, DTensor):
        return value
    value = value.to(device=example.device, dtype=example.dtype)
    return distribute_tensor(value, example.device_mesh, example.placements)


@torch.no_grad()
def gather(shards: Sequence[Tensor], into: Sequence[Tensor]) -> None:
    """Copy sharded tensors into whole ones, in order; every process must ask at the same time."""
    for value, place in zip(shards, into, strict=True):
        place.copy_(whole(value))
