"""Mask overlap: numbers worked by hand."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, jaccard_score

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


def test_overlap_agrees_with_scikit_learn():
    predicted, true = np.random.default_rng(2).random((2, 6, 9, 7)) > 0.6
    flat = [(t.ravel(), p.ravel()) for t, p in zip(true, predicted, strict=True)]
    assert dice(predicted, true) == pytest.approx([f1_score(t, p) for t, p in flat])
    assert iou(predicted, true) == pytest.approx([jaccard_score(t, p) for t, p in flat])


def test_swapped_masks_of_different_size_still_differ_in_nothing_but_order():
    # A large prediction and a small truth: Dice by hand 2*2/(8+2), whichever comes first.
    large, small = np.zeros((2, 1, 4, 4), bool)
    large[0, :2], small[0, 0, :2] = True, True
    assert dice(large, small) == dice(small, large) == pytest.approx(0.4)


def test_summary_of_borders():
    found = summarize(np.ones(3), np.ones(3), np.array([0.5, 1, 0]), np.array([1.0, 2.0, 9.0]))
    assert (found["boundary_iou"], found["hd95"], found["hd95_median"]) == (0.5, 4.0, 2.0)
    assert "diagonal" in found["empty_masks"]
