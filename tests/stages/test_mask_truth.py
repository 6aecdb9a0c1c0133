"""Annotated masks against true ones: what is summed up and which images are shown."""

import numpy as np
import pytest

from didgen.stages.mask_truth import extremes, mask_scores, truth_summary


def row(name, iou, contrast=0.9, failed=False):
    measures = {"dice": iou, "boundary_iou": iou / 2, "hd95": 10 * (1 - iou)}
    told = {f"annotated_{key}": value for key, value in measures.items()}
    return {"id": name, "annotated_iou": iou, **told, "contrast": contrast, "failed": failed}


def test_scores_of_a_shifted_square():
    true, found = np.zeros((2, 20, 20), bool)
    true[5:15, 5:15] = True
    found[5:15, 6:16] = True
    scores = mask_scores(found, true)
    assert scores["annotated_iou"] == pytest.approx(90 / 110)
    assert scores["annotated_dice"] == pytest.approx(0.9)
    assert scores["annotated_hd95"] == 1
    assert 0 < scores["annotated_boundary_iou"] < scores["annotated_iou"]


def test_summary_by_hand():
    rows = [row("a", 0.2, 0.5, True), row("b", 0.6, 0.9), row("c", 1.0, 0.8)]
    found = truth_summary(rows, 128, 128)
    assert found["iou"]["mean"] == pytest.approx(0.6) and found["iou"]["median"] == 0.6
    assert found["iou"]["sd"] == pytest.approx(0.4)
    assert found["iou"]["quartiles"] == pytest.approx([0.4, 0.8])
    assert (found["n"], found["n_failed"], found["boundary_band_px"]) == (3, 1, 4)
    # Two thirds rejected: only b, of the highest contrast, is left.
    assert found["rejection_by_contrast"][13]["quality"] == 0.6


def test_the_best_the_median_and_the_worst_are_shown():
    rows = [row(f"{i}", i / 10) for i in range(7)]
    assert extremes(rows, 1) == [("best", 6), ("median", 3), ("worst", 0)]
    assert [index for _, index in extremes(rows, 2)] == [6, 5, 4, 3, 1, 0]
    assert extremes(rows, 0) == []


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_no_image_is_shown_twice(count):
    shown = [index for _, index in extremes([row(f"{i}", i / 9) for i in range(count)], 2)]
    assert shown and len(set(shown)) == len(shown)
