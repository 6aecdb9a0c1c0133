"""Blocks computed twice: the same numbers, less kept."""

import pytest
import torch
from torch import Tensor

from didgen.attention.layers import attention_layers
from didgen.attention.recomputation import recomputed_blocks


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


@pytest.mark.parametrize("read", [True, False])
def test_numbers_stay_and_the_graph_keeps_less(unet, inputs, read: bool) -> None:
    names = attention_layers(unet, 32) if read else []
    plain, plain_gradient, plain_bytes = pass_and_gradient(unet, inputs)
    with recomputed_blocks(unet, names):
        output, gradient, kept = pass_and_gradient(unet, inputs)
    assert torch.equal(output, plain)
    assert torch.equal(gradient, plain_gradient)
    assert kept < (0.9 if read else 0.7) * plain_bytes


def test_layers_that_are_read_run_once(unet, inputs) -> None:
    runs: list[str] = []
    hooks = [
        unet.get_submodule(name).register_forward_hook(lambda *_, name=name: runs.append(name))
        for name in attention_layers(unet, 32)
    ]
    read = [name for name in attention_layers(unet, 32) if name.startswith("down_blocks.0.")]
    try:
        with recomputed_blocks(unet, read):
            pass_and_gradient(unet, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    assert {runs.count(name) for name in read} == {1}
    assert {runs.count(name) for name in set(runs) - set(read)} == {2}


def test_layers_are_themselves_again_after_an_error(unet) -> None:
    before = [vars(module).get("forward") for module in unet.modules()]
    with pytest.raises(RuntimeError, match="broken"), recomputed_blocks(unet, []):
        assert [vars(module).get("forward") for module in unet.modules()] != before
        raise RuntimeError("broken")
    assert [vars(module).get("forward") for module in unet.modules()] == before
