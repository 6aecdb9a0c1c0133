"""Mask overlap: numbers worked by hand."""

import numpy as np
import pytest

from didgen.metrics.segmentation import dice, iou, summarize, threshold_jaccard


def squares(*columns: int) -> np.ndarray:
    """Masks (N, 4, 4) whose first so many columns are lesion."""
    return np.stack([np.broadcast_to(np.arange(4) < c, (4, 4)) for c in columns])


def test_overlap_by_hand():
    # 4 of 8 pixels: Dice 2*4/(4+8), IoU 4/8. Then equal, then disjoint from nothing.
    predicted, true = squares(1, 3, 0), squares(2, 3, 2)
    assert dice(predicted, true) == pytest.approx([2 / 3, 1, 0])
    assert iou(predicted, true) == pytest.approx([1 / 2, 1, 0])


def test_two_empty_masks_agree_perfectly():
    empty = squares(0)
    assert dice(empty, empty) == 1
    assert iou(empty, empty) == 1


def test_dice_and_iou_keep_their_identity():
    masks = np.random.default_rng(0).random((2, 20, 8, 8)) > 0.5
    j = iou(*masks)
    assert dice(*masks) == pytest.approx(2 * j / (1 + j))


def test_overlap_is_symmetric():
    a, b = np.random.default_rng(1).random((2, 5, 8, 8)) > 0.3
    assert (dice(a, b) == dice(b, a)).all()


def test_threshold_jaccard_drops_what_is_below():
    assert threshold_jaccard(np.array([0.649, 0.65, 1.0])).tolist() == [0, 0.65, 1]


def test_summary_averages_over_images():
    found = summarize(np.array([0.5, 1.0]), np.array([1 / 3, 1.0]))
    assert found["dice"] == 0.75
    assert found["iou"] == pytest.approx(2 / 3)
    assert found["threshold_jaccard"] == 0.5
    assert found["dice_sd"] == pytest.approx(0.5 / np.sqrt(2))


def test_masks_must_be_bool_and_alike():
    with pytest.raises(ValueError, match="expected bool"):
        dice(squares(1).astype(float), squares(1))
    with pytest.raises(ValueError, match="expected equal"):
        iou(squares(1), squares(1, 2))
