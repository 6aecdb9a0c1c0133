"""A tiny random UNet with attention at 32x32, 16x16 and (in the middle) 8x8."""

import pytest
import torch
from diffusers import UNet2DConditionModel


def make_unet(**changes) -> UNet2DConditionModel:
    config = {
        "sample_size": 32,
        "block_out_channels": (32, 64, 64),
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
        "attention_head_dim": 4,
        "cross_attention_dim": 32,
        "norm_num_groups": 8,
    }
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**(config | changes)).eval().requires_grad_(False)
    # Random projections give almost flat attention; sharper ones make the tests mean something.
    for name, parameter in unet.named_parameters():
        if "to_q" in name or "to_k" in name:
            parameter.mul_(3.0)
    return unet


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    return make_unet()


@pytest.fixture
def new_unet():
    return make_unet


@pytest.fixture
def inputs():
    """make(batch, dtype) -> latents, timestep, embeddings of 12 text positions."""

    def make(batch: int = 2, dtype: torch.dtype = torch.float32, height=32, width=32):
        generator = torch.Generator().manual_seed(1)
        latents = torch.randn(batch, 4, height, width, generator=generator)
        embeddings = torch.randn(batch, 12, 32, generator=generator)
        return latents.to(dtype), 500, embeddings.to(dtype)

    return make


def hook_count(module: torch.nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


@pytest.fixture
def count_hooks():
    return hook_count
