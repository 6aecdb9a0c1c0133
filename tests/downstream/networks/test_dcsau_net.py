"""DCSAU-Net: its published size, its shapes, and that it trains."""

import pytest
import torch

from didgen.downstream.networks.dcsau_net import DCSAUNet, SplitAttention
from didgen.downstream.segmenters import segmentation_loss
from didgen.downstream.training import seeded


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(scope="module")
def network() -> DCSAUNet:
    with seeded(0):
        return DCSAUNet()


def test_it_has_the_published_number_of_parameters(network):
    assert count(network) == 2_598_785
    assert sum(b.numel() for b in network.buffers()) == 19_930
    assert count(network.stem) == 17_216
    assert [count(stage) for stage in network.down] == [57_920, 216_000, 857_984, 758_656]
    assert [count(stage) for stage in network.up] == [502_720, 129_600, 34_432, 24_192]


def test_shapes_at_every_stage(network):
    seen = []

    def note(_module, _inputs, out: torch.Tensor) -> None:
        seen.append(tuple(out.shape[1:]))

    stages = [network.stem, *network.down, *network.up]
    hooks = [stage.register_forward_hook(note) for stage in stages]
    with torch.inference_mode():
        out = network.eval()(torch.zeros(1, 3, 64, 64))
    for hook in hooks:
        hook.remove()
    assert seen == [
        (64, 64, 64), (128, 32, 32), (256, 16, 16), (512, 8, 8), (512, 4, 4),
        (256, 8, 8), (128, 16, 16), (64, 32, 32), (64, 64, 64),
    ]  # fmt: skip
    assert out.shape == (1, 1, 64, 64)


def test_sides_that_are_no_multiple_of_sixteen_come_back(network):
    with torch.inference_mode():
        assert network.eval()(torch.zeros(1, 3, 38, 52)).shape == (1, 1, 38, 52)


def test_two_networks_share_no_weights(network):
    other = DCSAUNet()
    addresses = {p.data_ptr() for p in network.parameters()}
    assert not addresses & {p.data_ptr() for p in other.parameters()}


def test_the_branches_are_weighed_against_each_other():
    with seeded(1):
        layer = SplitAttention(8).eval()
        x = torch.randn(2, 8, 6, 6)
    with torch.inference_mode():
        near, far = layer.branches(x)
        found = layer(x)
    low, high = torch.minimum(near, far), torch.maximum(near, far)
    assert ((found >= low - 1e-5) & (found <= high + 1e-5)).all()
    layer.excite.weight.data.zero_()
    layer.excite.bias.data[:8], layer.excite.bias.data[8:] = 50.0, -50.0
    with torch.inference_mode():
        assert torch.allclose(layer(x), near, atol=1e-5)


def test_training_needs_two_images(network):
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        network.train()(torch.zeros(1, 3, 32, 32))


@pytest.mark.slow
def test_a_training_step_at_256_px():
    with seeded(0):
        network = DCSAUNet().train()
        images, masks = torch.randn(2, 3, 256, 256), torch.zeros(2, 1, 256, 256)
        masks[:, :, 64:192, 64:192] = 1
        logits = network(images)
        loss = segmentation_loss(logits, masks)
        loss.backward()
    assert logits.shape == masks.shape and torch.isfinite(loss)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
