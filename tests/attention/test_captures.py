import math

import pytest
import torch

from didgen.attention.captures import (
    QueriesAndKeys,
    apply_self_attention,
    check_positions,
    cross_attention_maps,
)
from didgen.attention.layers import AttentionLayer, AttentionRecordingError


def capture(query, key, heads=1, grid=(1, 2), kind="self", scale=None):
    layer = AttentionLayer("layer", kind, grid, heads)
    return QueriesAndKeys(layer, query, key, scale or (query.shape[-1] // heads) ** -0.5)


def random_captures(layers=2, batch=2, heads=2, grid=(2, 3), length=None, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    pixels = grid[0] * grid[1]

    def draw(n):
        return torch.randn(batch, n, heads * 4, generator=generator, dtype=dtype)

    kind = "cross" if length else "self"
    return [capture(draw(pixels), draw(length or pixels), heads, grid, kind) for _ in range(layers)]


def explicit_maps(captures):
    """Mean over layers and heads of softmax(q k^T scale), (B, N, S), written out."""
    maps = []
    for c in captures:
        q = c.query.unflatten(-1, (c.layer.heads, -1)).transpose(1, 2)
        k = c.key.unflatten(-1, (c.layer.heads, -1)).transpose(1, 2)
        maps.append(torch.softmax(q @ k.mT * c.scale, -1).mean(1))
    return torch.stack(maps).mean(0)


def test_equation_2_by_hand():
    # One head, d = 1: logits of pixel 0 are (0, ln 3), of pixel 1 (0, 0).
    query = torch.tensor([[[1.0], [0.0]]])
    key = torch.tensor([[[0.0], [math.log(3.0)]]])
    maps = cross_attention_maps([capture(query, key, kind="cross")], [0, 1])
    assert maps.shape == (1, 2, 1, 2)
    torch.testing.assert_close(maps[0, :, 0], torch.tensor([[0.25, 0.5], [0.75, 0.5]]))


def test_equation_2_divides_by_the_root_of_d():
    # d = 4: the dot product 2 ln 3 over sqrt(4) is ln 3.
    query = torch.tensor([[[2.0, 0.0, 0.0, 0.0], [0.0] * 4]])
    key = torch.tensor([[[0.0] * 4, [math.log(3.0), 9.0, 0.0, 0.0]]])
    maps = cross_attention_maps([capture(query, key, kind="cross")], [1])
    torch.testing.assert_close(maps[0, 0, 0], torch.tensor([0.75, 0.5]))


def test_cross_maps_equal_the_explicit_softmax():
    captures = random_captures(length=5)
    maps = cross_attention_maps(captures, [3, 1])
    expected = explicit_maps(captures)[..., [3, 1]].mT.unflatten(-1, (2, 3))
    torch.testing.assert_close(maps, expected)


def test_cross_maps_of_all_tokens_sum_to_one():
    maps = cross_attention_maps(random_captures(length=5), range(5))
    torch.testing.assert_close(maps.sum(1), torch.ones(2, 2, 3, dtype=torch.float64))


def test_positions_may_differ_between_images():
    captures = random_captures(length=5)
    maps = cross_attention_maps(captures, torch.tensor([[0, 1], [4, 2]]))
    torch.testing.assert_close(maps[0], cross_attention_maps(captures, [0, 1])[0])
    torch.testing.assert_close(maps[1], cross_attention_maps(captures, [4, 2])[1])


@pytest.mark.parametrize("positions", [[5], [-1], [], [[1], [2], [3]]])
def test_bad_positions_are_refused(positions):
    with pytest.raises(AttentionRecordingError, match="positions"):
        check_positions(positions, batch=2, length=5)


@pytest.mark.parametrize("columns", [None, 1, 3, 9])
def test_applied_self_attention_equals_the_matrix_product(columns):
    captures = random_captures()
    v = torch.randn(*((2, 6) if columns is None else (2, 6, columns)), dtype=torch.float64)
    matrix = explicit_maps(captures)
    expected = matrix @ (v if columns else v.unsqueeze(-1))
    result = apply_self_attention(captures, v)
    assert result.shape == v.shape
    torch.testing.assert_close(result, expected.reshape(v.shape))


def test_four_applications_equal_the_fourth_matrix_power():
    captures = random_captures()
    v = torch.randn(2, 6, dtype=torch.float64)
    expected = torch.linalg.matrix_power(explicit_maps(captures), 4) @ v.unsqueeze(-1)
    result = v
    for _ in range(4):
        result = apply_self_attention(captures, result)
    torch.testing.assert_close(result, expected.squeeze(-1))


def test_rows_of_self_attention_sum_to_one():
    ones = torch.ones(2, 6, dtype=torch.float64)
    torch.testing.assert_close(apply_self_attention(random_captures(), ones), ones)


def test_gradients_agree_with_finite_differences():
    first = random_captures(layers=1, batch=1)[0]
    cross = random_captures(layers=1, batch=1, length=5)[0]
    v = torch.randn(1, 6, dtype=torch.float64, requires_grad=True)

    def own(query, key, v):
        return apply_self_attention([capture(query, key, 2, (2, 3))], v)

    def text(query, key):
        return cross_attention_maps([capture(query, key, 2, (2, 3), "cross")], [1, 4])

    def free(c):
        return c.query.clone().requires_grad_(), c.key.clone().requires_grad_()

    assert torch.autograd.gradcheck(own, (*free(first), v))
    assert torch.autograd.gradcheck(text, free(cross))


def test_half_precision_and_autocast_still_get_a_single_precision_softmax():
    captures = random_captures(length=5, dtype=torch.float32)
    halves = [
        QueriesAndKeys(c.layer, c.query.bfloat16(), c.key.bfloat16(), c.scale) for c in captures
    ]
    widened = [QueriesAndKeys(c.layer, c.query.float(), c.key.float(), c.scale) for c in halves]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = cross_attention_maps(halves, [1])
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps, cross_attention_maps(widened, [1]), rtol=0, atol=0)


def test_values_of_another_size_are_refused():
    with pytest.raises(AttentionRecordingError, match=r"\(2, 7\), expected \(2, 6\)"):
        apply_self_attention(random_captures(), torch.zeros(2, 7, dtype=torch.float64))
