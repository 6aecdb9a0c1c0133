"""XBound-Former: its published size, its outputs, its losses, and that it trains."""

import pytest
import torch

from didgen.downstream.networks.xbound_former import (
    BoundaryGate,
    Exchange,
    Positions,
    XBoundFormer,
    XBoundOutput,
    boundary_targets,
    structure_loss,
    xbound_loss,
)
from didgen.downstream.training import seeded

# The released code holds a convolution that it never calls; it is left out here.
DEAD = 131_584


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(scope="module")
def network() -> XBoundFormer:
    with seeded(0):
        return XBoundFormer()


def test_it_has_the_published_number_of_parameters(network):
    assert count(network) == 30_641_287 - DEAD
    assert count(network) == pytest.approx(30_641_287, rel=0.01)
    assert count(network.backbone) == 24_849_856
    assert [count(learner) for learner in network.learners] == [1_554_945] * 3
    assert [count(exchange) for exchange in network.exchanges] == [429_440] * 2
    assert [count(layer) for layer in network.narrow] == [16_512, 41_088, 65_664]
    assert count(network.head) + count(network.scale_heads) == 12_868


@pytest.mark.slow
def test_the_size_of_the_papers_two_layers():
    assert count(XBoundFormer(2, 2)) == 35_285_002 - DEAD


def test_training_gives_four_lesion_maps_and_three_boundary_maps(network):
    with seeded(0), torch.no_grad():
        output = network.train()(torch.randn(2, 3, 64, 96))
    assert [tuple(x.shape) for x in output.lesions] == [(2, 1, 64, 96)] * 4
    shapes = [[tuple(x.shape) for x in scale] for scale in output.boundaries]
    assert shapes == [[(2, 1, 8, 12)], [(2, 1, 4, 6)], [(2, 1, 2, 3)]]


def test_evaluation_gives_the_main_map(network):
    with torch.inference_mode():
        assert network.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 1, 64, 64)


def test_positions_differ_everywhere_and_stretch_beyond_their_tables():
    positions = Positions(8, grid=4)
    assert positions(4, 3).shape == (1, 12, 8)
    tokens = positions(4, 4)[0]
    # Row tables move down a column of the grid, column tables along a row.
    assert torch.equal(tokens[0, :4], tokens[4, :4]) and torch.equal(tokens[0, 4:], tokens[1, 4:])
    assert len(tokens.detach().unique(dim=0)) == 16
    larger = positions(7, 7)[0]
    assert torch.allclose(larger[0], tokens[0]) and torch.allclose(larger[-1], tokens[-1])


def test_the_gate_amplifies_by_its_map():
    gate = BoundaryGate(4).eval()
    features = torch.randn(1, 4, 5, 5)
    with torch.inference_mode():
        told, boundary = gate(features)
    assert torch.allclose(told, features * (1 + boundary.sigmoid()))


def test_the_exchange_keeps_its_residual_unless_as_released():
    fine, coarse, vectors = (
        torch.randn(1, 8, 4, 4),
        torch.randn(1, 8, 2, 2),
        torch.randn(2, 1, 1, 8),
    )
    for released in (False, True):
        layer = Exchange(8, released)
        layer.fuse.weight.data.zero_()
        layer.fuse.bias.data.fill_(0.5)
        found = layer(fine, coarse, *vectors)
        assert torch.allclose(found, torch.ones_like(fine) if released else fine + 0.5)


def test_boundary_targets_by_hand():
    masks = torch.zeros(1, 1, 8, 8)
    masks[:, :, 0:4, 0:4] = 1
    (exact,) = boundary_targets(masks, [torch.Size((8, 8))])
    # Of a 4x4 square in the corner: beside skin are its last row and its last column.
    assert exact[0, 0, :4, :4].tolist() == [[0, 0, 0, 1]] * 3 + [[1, 1, 1, 1]]
    assert exact.sum() == 7
    (coarse,) = boundary_targets(masks, [torch.Size((2, 2))])
    assert coarse[0, 0].tolist() == [[1, 0], [0, 0]]


def test_structure_loss_by_hand():
    masks = torch.zeros(1, 1, 40, 40)
    masks[:, :, 10:30, 10:30] = 1
    sure = 40 * (2 * masks - 1)
    assert structure_loss(sure, masks) == pytest.approx(0, abs=1e-6)
    # All wrong: entropy 40 at every pixel, whatever its weight, and an IoU of nearly nothing.
    assert structure_loss(-sure, masks) == pytest.approx(41, abs=1e-3)


def test_a_perfect_answer_costs_nothing():
    masks = torch.zeros(1, 1, 32, 32)
    masks[:, :, 8:24, 8:24] = 1
    targets = boundary_targets(masks, [torch.Size((4, 4))])
    perfect = XBoundOutput([40 * (2 * masks - 1)] * 4, [[40 * (2 * targets[0] - 1)]])
    assert xbound_loss(perfect, masks) == pytest.approx(0, abs=1e-5)
    wrong = perfect._replace(boundaries=[[-40 * (2 * targets[0] - 1)]])
    assert xbound_loss(wrong, masks) == pytest.approx(40, abs=1e-3)


@pytest.mark.slow
def test_a_training_step_at_256_px(network):
    with seeded(0):
        images, masks = torch.randn(2, 3, 256, 256), torch.zeros(2, 1, 256, 256)
        masks[:, :, 64:192, 64:192] = 1
        output = network.train()(images)
        loss = xbound_loss(output, masks)
        loss.backward()
    assert [x.shape for x in output.lesions] == [masks.shape] * 4 and torch.isfinite(loss)
    assert [scale[0].shape[-1] for scale in output.boundaries] == [32, 16, 8]
    grads = [p.grad for p in network.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in grads)
    network.zero_grad()
