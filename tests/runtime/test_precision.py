"""Weights kept in bfloat16 give what autocast gives with weights in float32."""

import copy

import torch

from didgen.runtime.precision import autocast, keep_products_in_half
from didgen.tiny.architecture import TinyShape, build_unet


def test_output_and_gradient_are_the_same_to_the_bit() -> None:
    torch.manual_seed(0)
    unet = build_unet(TinyShape()).eval().requires_grad_(False)
    held = copy.deepcopy(unet)
    keep_products_in_half(held)
    latents = torch.randn(2, unet.config.in_channels, 16, 16)
    embeddings = torch.randn(2, 77, unet.config.cross_attention_dim)
    found = []
    for each in (unet, held):
        z = latents.clone().requires_grad_()
        with autocast("cpu", "bfloat16"):
            output = each(z, 500, encoder_hidden_states=embeddings).sample
        (gradient,) = torch.autograd.grad(output.float().square().sum(), z)
        found.append((output.detach(), gradient))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_half_the_memory_and_the_same_number_type_for_latents() -> None:
    unet = build_unet(TinyShape())
    before = sum(p.numel() * p.element_size() for p in unet.parameters())
    keep_products_in_half(unet)
    after = sum(p.numel() * p.element_size() for p in unet.parameters())
    assert after < 0.55 * before
    assert next(unet.parameters()).dtype == torch.float32
    norms = [m for m in unet.modules() if isinstance(m, torch.nn.LayerNorm | torch.nn.GroupNorm)]
    assert norms and {m.weight.dtype for m in norms} == {torch.float32}
