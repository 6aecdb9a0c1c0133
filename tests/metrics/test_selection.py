"""Gates and rejection curves: numbers worked by hand."""

import numpy as np
import pytest

from didgen.metrics.selection import Gate, rejection_curve, rejections


def test_gates_by_hand():
    scores = {"iou": np.array([0.5, 0.49, np.nan, 0.9]), "area": np.array([0.1, 0.1, 0.1, 0.99])}
    gates = [Gate("agreement", "iou", low=0.5), Gate("large", "area", high=0.95)]
    assert rejections(scores, gates) == [[], ["agreement"], ["agreement"], ["large"]]


def test_a_gate_without_bounds_keeps_everything():
    assert Gate("none", "iou").passes(np.array([np.nan, 0.0])).all()
    assert rejections({"iou": np.zeros(2)}, []) == [[], []]


def test_a_gate_on_an_absent_score_is_an_error():
    with pytest.raises(ValueError, match="expected also"):
        rejections({"iou": np.zeros(2)}, [Gate("x", "contrast", low=0.1)])


def test_curve_by_hand():
    # In order of confidence the qualities are 1.0, 0.6, 0.8, 0.0.
    points = rejection_curve(
        np.array([0.1, 0.9, 0.3, 0.5]), np.array([0.0, 1.0, 0.8, 0.6]), (0, 0.25, 0.5, 0.75)
    )
    assert [point["kept"] for point in points] == [4, 3, 2, 1]
    assert [point["quality"] for point in points] == pytest.approx([0.6, 0.8, 0.8, 1.0])
    assert [point["rejected"] for point in points] == [0, 0.25, 0.5, 0.75]


def test_a_confidence_that_knows_nothing_gives_no_rise():
    rng = np.random.default_rng(0)
    points = rejection_curve(rng.random(4000), rng.random(4000))
    assert max(abs(point["quality"] - 0.5) for point in points[:11]) < 0.03


def test_one_sample_always_remains():
    assert [p["kept"] for p in rejection_curve(np.ones(1), np.ones(1), (0, 0.9))] == [1, 1]


@pytest.mark.parametrize(
    ("confidence", "quality", "words"),
    [
        ([], [], "at least one"),
        ([1.0], [1.0, 2.0], "same number"),
        ([np.nan], [1.0], "not finite"),
    ],
)
def test_bad_values_are_refused(confidence, quality, words):
    with pytest.raises(ValueError, match=words):
        rejection_curve(np.array(confidence), np.array(quality))
