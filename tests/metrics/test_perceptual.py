"""Distances in feature maps: numbers worked by hand."""

import pytest
import torch

from didgen.metrics.perceptual import mean_pairwise_distance, perceptual_distance


def maps(*pixels):
    """One layer of 1x1 maps, one image for each tuple of channels."""
    return [torch.tensor(pixels, dtype=torch.float32)[:, :, None, None]]


def test_distance_by_hand():
    # Unit vectors at right angles: squared distance 2. Length does not count.
    assert perceptual_distance(maps((1, 0), (3, 0)), maps((0, 5), (1, 0))).tolist() == [2, 0]


def test_layers_and_pixels_count_alike():
    near, far = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)
    near[:, 0], far[:, 0] = 1, 1
    far[0, :, 0, 0] = torch.tensor([0.0, 1.0])  # one of four pixels differs by 2
    same = maps((1, 0))[0]
    assert perceptual_distance([near, same], [far, same]).item() == pytest.approx(0.25)


def test_mean_over_all_pairs_by_hand():
    # Pairs: (a, b) 2, (a, c) 0, (b, c) 2.
    assert mean_pairwise_distance(maps((1, 0), (0, 1), (2, 0))) == pytest.approx(4 / 3)
    assert mean_pairwise_distance(maps((1, 0), (1, 0))) == 0


def test_pixels_of_zeros_are_no_division_by_zero():
    assert perceptual_distance(maps((0, 0)), maps((0, 1))).item() == 1


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="expected equal"):
        perceptual_distance(maps((1, 0)), maps((1, 0, 0)))
    with pytest.raises(ValueError, match="at least two"):
        mean_pairwise_distance(maps((1, 0)))
