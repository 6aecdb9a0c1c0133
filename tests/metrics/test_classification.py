"""Classification metrics: numbers worked by hand, and agreement with scikit-learn."""

import numpy as np
import pytest
import sklearn.metrics as reference

from didgen.metrics.classification import (
    auroc,
    averages,
    balanced_accuracy,
    confusion_matrix,
    expected_calibration_error,
    precision_recall_f1,
    summarize,
)

LABELS = np.array([0, 0, 0, 1, 1, 2])
PREDICTIONS = np.array([0, 0, 1, 1, 1, 2])


@pytest.fixture
def random_case() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.arange(5), rng.integers(0, 5, 195)])
    logits = rng.normal(size=(200, 5)) + 1.5 * np.eye(5)[labels]
    return labels, np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def test_confusion_rows_are_truth():
    expected = [[2, 1, 0], [0, 2, 0], [0, 0, 1]]
    assert confusion_matrix(LABELS, PREDICTIONS, 3).tolist() == expected


def test_per_class_by_hand():
    found = precision_recall_f1(confusion_matrix(LABELS, PREDICTIONS, 3))
    # Not symmetric: predictions in place of labels would swap the two.
    assert found["precision"] == pytest.approx([1, 2 / 3, 1])
    assert found["recall"] == pytest.approx([2 / 3, 1, 1])
    assert found["f1"] == pytest.approx([4 / 5, 4 / 5, 1])
    assert found["support"].tolist() == [3, 2, 1]


def test_micro_precision_recall_and_f1_are_the_accuracy(random_case):
    labels, probabilities = random_case
    found = averages(confusion_matrix(labels, probabilities.argmax(1), 5))["micro"]
    accuracy = (probabilities.argmax(1) == labels).mean()
    assert set(found.values()) == {accuracy}


@pytest.mark.parametrize("kind", ["macro", "weighted"])
def test_averages_agree_with_scikit_learn(random_case, kind):
    labels, probabilities = random_case
    predictions = probabilities.argmax(1)
    found = averages(confusion_matrix(labels, predictions, 5))[kind]
    p, r, f, _ = reference.precision_recall_fscore_support(labels, predictions, average=kind)
    assert list(found.values()) == pytest.approx([p, r, f])


def test_a_class_that_never_occurs_does_not_lower_the_macro_average():
    with_three = averages(confusion_matrix(LABELS, PREDICTIONS, 3))["macro"]
    assert averages(confusion_matrix(LABELS, PREDICTIONS, 4))["macro"] == with_three


def test_balanced_accuracy_by_hand_and_by_scikit_learn(random_case):
    assert balanced_accuracy(LABELS, PREDICTIONS) == pytest.approx((2 / 3 + 1 + 1) / 3)
    labels, probabilities = random_case
    expected = reference.balanced_accuracy_score(labels, probabilities.argmax(1))
    assert balanced_accuracy(labels, probabilities.argmax(1)) == pytest.approx(expected)


def test_auroc_by_hand_with_a_tie():
    # Pairs: (.8 > .3), (.8 > .5), (.5 > .3), (.5 = .5 counts half) = 3.5 of 4.
    assert auroc(np.array([1, 1, 0, 0]), np.array([0.8, 0.5, 0.3, 0.5])) == pytest.approx(0.875)


def test_auroc_agrees_with_scikit_learn_and_is_none_without_two_classes(random_case):
    labels, probabilities = random_case
    expected = reference.roc_auc_score(labels == 2, probabilities[:, 2])
    assert auroc(labels == 2, probabilities[:, 2]) == pytest.approx(expected)
    assert auroc(np.ones(3), np.arange(3)) is None
    assert auroc(np.zeros(3), np.arange(3)) is None


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


@pytest.mark.parametrize(
    ("labels", "predictions", "words"),
    [([], [], "non-empty"), ([0, 1], [0], "equally long"), ([0, 3], [0, 1], "expected 0..2")],
)
def test_bad_input_is_named(labels, predictions, words):
    with pytest.raises(ValueError, match=words):
        confusion_matrix(np.array(labels, int), np.array(predictions, int), 3)


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


def test_the_summary_agrees_with_scikit_learn(random_case):
    labels, probabilities = random_case
    found = summarize(labels, probabilities, list("ABCDE"))
    predictions = probabilities.argmax(1)
    for kind in ("micro", "macro", "weighted"):
        p, r, f, _ = reference.precision_recall_fscore_support(labels, predictions, average=kind)
        assert list(found[kind].values()) == pytest.approx([p, r, f])
    areas = reference.roc_auc_score(
        labels, probabilities, multi_class="ovr", average=None, labels=np.arange(5)
    )
    own = [found["per_class"][code]["auroc"] for code in "ABCDE"]
    assert own == pytest.approx(list(areas))
    assert found["auroc_macro"] == pytest.approx(areas.mean())
    assert found["auroc_undefined"] == []
    confusion = reference.confusion_matrix(labels, predictions)
    assert found["confusion"]["rows_true"] == confusion.tolist()
    assert set(found["averaging"]) >= {"micro", "macro", "weighted"}
