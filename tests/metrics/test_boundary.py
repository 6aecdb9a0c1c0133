"""Border agreement: numbers worked by hand, and agreement with MONAI."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist

from didgen.metrics.boundary import (
    MaskError,
    band_width,
    boundary_band,
    boundary_iou,
    hausdorff95,
    surface,
)
from didgen.metrics.segmentation import dice, iou


def box(top: int, left: int, height: int, width: int, side: int = 12) -> np.ndarray:
    mask = np.zeros((side, side), bool)
    mask[top : top + height, left : left + width] = True
    return mask


def test_band_of_a_square_by_hand():
    # A 6x6 square: all but the inner 4x4 within 1 px, all but the inner 2x2 within 2 px.
    square = box(3, 3, 6, 6)
    assert boundary_band(square, 1).sum() == 36 - 16
    assert boundary_band(square, 2).sum() == 36 - 4
    assert (boundary_band(square, 3) == square).all()


def test_the_image_edge_is_a_border():
    full = np.ones((12, 12), bool)
    assert boundary_band(full, 1).sum() == 144 - 100
    assert surface(full).sum() == 144 - 100


def test_band_width_is_two_percent_of_the_diagonal():
    assert band_width(512, 512) == 14  # 0.02 * 724.1 = 14.48
    assert band_width(12, 12) == 1  # 0.34, but at least 1


def test_boundary_iou_by_hand():
    # Rings of 20 px, one shifted by a column. Their columns 3 and 8, and 4 and 9, do not meet but
    # where a row of the other ring crosses: the rows 3 and 8 share columns 4..8, 5 px each.
    first, second = box(3, 3, 6, 6), box(3, 4, 6, 6)
    assert boundary_iou(first, second) == pytest.approx(10 / (20 + 20 - 10))
    assert boundary_iou(first, second) == boundary_iou(second, first)
    assert boundary_iou(first, first) == 1


def test_boundary_iou_sees_what_iou_hardly_does():
    # One px of a large square's border: IoU stays high, the boundary's falls.
    first, second = box(5, 5, 90, 90, 100), box(6, 6, 88, 88, 100)
    iou = (first & second).sum() / (first | second).sum()
    assert iou > 0.95 and boundary_iou(first, second) < 0.6


def test_empty_masks():
    empty, square = np.zeros((12, 12), bool), box(3, 3, 6, 6)
    assert boundary_iou(empty, empty) == 1 and hausdorff95(empty, empty) == 0
    assert boundary_iou(empty, square) == 0
    assert hausdorff95(empty, square) == hausdorff95(square, empty) == pytest.approx(12 * 2**0.5)


def test_hausdorff_of_a_shift_is_the_shift():
    # Each outermost pixel of a 1 px high bar is one column from the other bar's, or on it.
    first, second = box(4, 2, 1, 5), box(4, 5, 1, 5)
    # First to second: columns 2, 3, 4, 5, 6 are 3, 2, 1, 0, 0 from columns 5..9.
    assert hausdorff95(first, second) == pytest.approx(np.percentile([3, 2, 1, 0, 0], 95))
    assert hausdorff95(first, second, 100) == 3
    assert hausdorff95(first, first) == 0


def test_hausdorff_takes_the_worse_direction():
    # All of the small bar lies on the long one, whose far end is 10 px away.
    small, long = box(4, 0, 1, 1), box(4, 0, 1, 11)
    assert hausdorff95(small, long, 100) == 10
    assert hausdorff95(small, long) == pytest.approx(np.percentile(np.arange(11), 95))


def test_few_stray_pixels_do_not_count():
    square = box(30, 30, 40, 40, 100)
    stray = square.copy()
    stray[0, 0] = True
    assert hausdorff95(square, stray, 100) > 30
    assert hausdorff95(square, stray) == 0


def test_bad_masks_are_refused():
    square = box(3, 3, 6, 6)
    with pytest.raises(MaskError, match="expected bool"):
        boundary_iou(square.astype(float), square)
    with pytest.raises(MaskError, match="expected equal"):
        hausdorff95(square, square[:-1])
    with pytest.raises(MaskError, match=r"expected bool \(H, W\)"):
        hausdorff95(square[None], square[None])


def blobs(seed: int, side: int = 40) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return ndimage.gaussian_filter(rng.normal(size=(side, side)), 4) > 0.02


@pytest.mark.parametrize("seed", range(4))
def test_hausdorff_agrees_with_all_pairs_of_border_pixels(seed):
    first, second = blobs(seed), blobs(seed + 100)
    rims = []
    for mask in (first, second):
        padded = np.pad(mask, 1)
        # A pixel with one of its four neighbours outside.
        inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        rims.append(np.argwhere(mask & ~inside))
    distances = cdist(*rims)
    for percentile in (95, 100):
        expected = max(np.percentile(distances.min(axis), percentile) for axis in (0, 1))
        assert hausdorff95(first, second, percentile) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(4))
def test_boundary_iou_agrees_with_repeated_erosion(seed):
    first, second = blobs(seed), blobs(seed + 100)
    share = 3 / np.hypot(40, 40)
    bands = []
    for mask in (first, second):
        inner = ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=3, border_value=0)
        bands.append(mask & ~inner)
    expected = (bands[0] & bands[1]).sum() / (bands[0] | bands[1]).sum()
    assert boundary_iou(first, second, share) == pytest.approx(expected)


@pytest.mark.slow  # importing MONAI takes seconds
def test_hausdorff_and_overlap_agree_with_monai():
    import torch
    from monai.metrics import compute_dice, compute_hausdorff_distance, compute_iou

    pairs = [(blobs(seed), blobs(seed + 100)) for seed in range(20)]
    masks = [torch.from_numpy(np.stack(side))[:, None].float() for side in zip(*pairs, strict=True)]
    for percentile in (95, 100):
        expected = compute_hausdorff_distance(
            *masks, include_background=True, percentile=percentile
        )
        own = [hausdorff95(*pair, percentile) for pair in pairs]
        assert own == pytest.approx(expected[:, 0].tolist(), rel=1e-6)
    first, second = (np.stack(side) for side in zip(*pairs, strict=True))
    assert dice(first, second).tolist() == pytest.approx(compute_dice(*masks)[:, 0].tolist())
    assert iou(first, second).tolist() == pytest.approx(compute_iou(*masks)[:, 0].tolist())
