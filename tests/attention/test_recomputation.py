"""Feed-forward layers computed twice: the same numbers, less kept."""

import pytest
import torch
from torch import Tensor

from didgen.attention.recomputation import recomputed_feed_forwards


def pass_and_gradient(unet, inputs) -> tuple[Tensor, Tensor, int]:
    """Output, gradient to the latents, and the bytes that the graph keeps beside the weights."""
    latents, timestep, embeddings = inputs(1)
    latents = latents.clone().requires_grad_()
    weights = {p.untyped_storage().data_ptr() for p in unet.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = unet(latents, timestep, encoder_hidden_states=embeddings).sample
    (gradient,) = torch.autograd.grad(output.square().sum(), latents)
    return output.detach(), gradient, sum(kept.values())


def test_numbers_stay_and_the_graph_keeps_less(unet, inputs) -> None:
    unet.requires_grad_(False)
    plain, plain_gradient, plain_bytes = pass_and_gradient(unet, inputs)
    with recomputed_feed_forwards(unet):
        output, gradient, kept = pass_and_gradient(unet, inputs)
    assert torch.equal(output, plain)
    assert torch.equal(gradient, plain_gradient)
    assert kept < 0.9 * plain_bytes


def test_layers_are_themselves_again_after_an_error(unet) -> None:
    before = [vars(module).get("forward") for module in unet.modules()]
    with pytest.raises(RuntimeError, match="broken"), recomputed_feed_forwards(unet):
        assert [vars(module).get("forward") for module in unet.modules()] != before
        raise RuntimeError("broken")
    assert [vars(module).get("forward") for module in unet.modules()] == before
