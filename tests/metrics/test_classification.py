"""Classification metrics: numbers worked by hand."""

import warnings

import numpy as np
import pytest

from didgen.metrics.classification import (
    DECIDING,
    balanced_accuracy,
    expected_calibration_error,
    summarize,
    temperature,
)

LABELS = np.array([0, 0, 0, 1, 1, 2])
PREDICTIONS = np.array([0, 0, 1, 1, 1, 2])
CODES = ("MEL", "NV", "DF", "BCC")


def certain(predictions: np.ndarray, n_classes: int) -> np.ndarray:
    """Probabilities that are nearly 1 for the predicted class."""
    return 0.9 * np.eye(n_classes)[predictions] + 0.1 / n_classes


@pytest.fixture
def random_case() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.arange(5), rng.integers(0, 5, 195)])
    logits = rng.normal(size=(200, 5)) + 1.5 * np.eye(5)[labels]
    return labels, np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def test_the_summary_by_hand():
    found = summarize(LABELS, certain(PREDICTIONS, 3), CODES[:3])
    assert found["confusion"]["rows_true"] == [[2, 1, 0], [0, 2, 0], [0, 0, 1]]
    # Not symmetric: predictions in place of labels would swap precision and recall.
    per_class = found["per_class"]
    assert [per_class[code]["precision"] for code in CODES[:3]] == pytest.approx([1, 2 / 3, 1])
    assert [per_class[code]["recall"] for code in CODES[:3]] == pytest.approx([2 / 3, 1, 1])
    assert [per_class[code]["f1"] for code in CODES[:3]] == pytest.approx([4 / 5, 4 / 5, 1])
    assert [per_class[code]["support"] for code in CODES[:3]] == [3, 2, 1]
    assert found["accuracy"] == pytest.approx(5 / 6)
    assert set(found["micro"].values()) == {found["accuracy"]}
    macro = {"precision": 8 / 9, "recall": 8 / 9, "f1": 13 / 15}
    assert found["macro"] == pytest.approx(macro)
    weighted = {"precision": (3 + 4 / 3 + 1) / 6, "recall": 5 / 6, "f1": (12 / 5 + 8 / 5 + 1) / 6}
    assert found["weighted"] == pytest.approx(weighted)
    assert found["balanced_accuracy"] == pytest.approx(8 / 9)
    # Class 0: 2 of its 3 images are above all 3 others, one ties with them.
    assert per_class["MEL"]["auroc"] == pytest.approx((6 + 3 * 0.5) / 9)
    assert set(found["averaging"]) >= {"micro", "macro", "weighted"}


def test_a_class_that_never_occurs_does_not_lower_the_macro_average():
    with_three = summarize(LABELS, certain(PREDICTIONS, 3), CODES[:3])
    with_four = summarize(LABELS, certain(PREDICTIONS, 4), CODES)
    assert with_four["macro"] == with_three["macro"]
    assert with_four["per_class"]["BCC"] == {
        "precision": 0, "recall": 0, "f1": 0, "auroc": None, "support": 0,
    }  # fmt: skip


def test_balanced_accuracy_is_over_the_classes_of_the_labels():
    assert balanced_accuracy(LABELS, PREDICTIONS) == pytest.approx((2 / 3 + 1 + 1) / 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # A class that is predicted and never true has no recall.
        assert balanced_accuracy(np.array([0, 0, 1]), np.array([0, 2, 1])) == pytest.approx(0.75)


def test_calibration_error_by_hand():
    # Bin (.6, .8]: confidences .7 and .7, one right: |.5 - .7|. Bin (.8, 1]: .9, right: |1 - .9|.
    probabilities = np.array([[0.7, 0.3], [0.7, 0.3], [0.1, 0.9]])
    found = expected_calibration_error(np.array([0, 1, 1]), probabilities, bins=5)
    assert found == pytest.approx((2 * 0.2 + 1 * 0.1) / 3)


def test_certain_and_right_is_perfectly_calibrated():
    assert expected_calibration_error(np.array([0, 1]), np.eye(2)) == 0


def test_summary_of_an_absent_class_is_finite_but_for_its_auroc():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1]])
    found = summarize(np.array([0, 1, 0]), probabilities, ["MEL", "NV", "DF"])
    assert found["per_class"]["DF"]["auroc"] is None
    assert found["per_class"]["DF"]["support"] == 0
    assert found["auroc_macro"] == 1
    assert found["auroc_undefined"] == ["DF"]
    assert found["balanced_accuracy"] == found["accuracy"] == 1
    alone = summarize(np.array([1, 1]), probabilities[:2], ["MEL", "NV", "DF"])
    assert alone["per_class"]["NV"]["auroc"] is None and alone["auroc_macro"] is None


@pytest.mark.parametrize(
    ("labels", "count", "words"),
    [([], 0, "no images"), ([0, 1], 1, r"\(2,\) labels"), ([0, 3], 2, "0..3, expected .* 0..2")],
)
def test_bad_input_is_named(labels, count, words):
    with pytest.raises(ValueError, match=words):
        summarize(np.array(labels, int), np.full((count, 3), 1 / 3), CODES[:3])


def test_calibration_error_agrees_with_a_loop_over_bins(random_case):
    labels, probabilities = random_case
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    for bins in (5, 15):
        expected = 0.0
        for low in np.arange(bins) / bins:
            inside = (confidence > low) & (confidence <= low + 1 / bins)
            if inside.any():
                gap = abs(right[inside].mean() - confidence[inside].mean())
                expected += inside.mean() * gap
        found = expected_calibration_error(labels, probabilities, bins)
        assert found == pytest.approx(expected, abs=1e-12)


def test_the_deciding_metrics_are_over_the_classes_of_the_labels():
    labels, predictions = np.array([0, 0, 0, 1]), np.array([0, 0, 2, 1])
    # Class 0: recall 2/3, F1 4/5; class 1: both 1; class 2 is no label.
    expected = {"balanced accuracy": 5 / 6, "macro F1": 9 / 10, "accuracy": 3 / 4}
    assert {k: f(labels, predictions) for k, f in DECIDING.items()} == pytest.approx(expected)


def test_temperature_undoes_overconfidence():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 3))
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (rng.random((len(logits), 1)) > chances.cumsum(1)).sum(1)
    assert temperature(5 * logits, labels) == pytest.approx(5, rel=0.05)
    assert temperature(logits / 4, labels) == pytest.approx(1 / 4, rel=0.05)
    # All right: never surer than the bound.
    assert temperature(logits, logits.argmax(1)) == pytest.approx(1 / 20, rel=1e-3)
