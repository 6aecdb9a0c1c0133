"""Tallies: the metrics of scikit-learn, numbers worked by hand, influences as derivatives."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score

from didgen.metrics.tallies import Tally, f1_tally, mean_tally, ratio_mean, recall_tally


@pytest.fixture
def case() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.choice(["MEL", "NV", "BCC"], 80, p=[0.2, 0.7, 0.1])
    predicted = np.where(rng.random((3, 80)) < 0.6, labels, rng.choice(["MEL", "NV"], (3, 80)))
    return predicted, labels


def test_tallies_are_the_metrics_of_sklearn(case):
    predicted, labels = case
    recall, f1 = recall_tally(predicted, labels), f1_tally(predicted, labels)
    for k in range(3):
        expected = balanced_accuracy_score(labels, predicted[k])
        assert recall.per_seed[k] == pytest.approx(expected)
        assert f1.per_seed[k] == pytest.approx(f1_score(labels, predicted[k], average="macro"))


def test_balanced_accuracy_by_hand():
    # Class a: 4 images, right on 3; class b: one image, right.
    labels = np.array(["a", "a", "a", "a", "b"])
    tally = recall_tally(np.array(["a", "a", "a", "b", "b"]), labels)
    assert tally.per_seed == pytest.approx([(3 / 4 + 1) / 2])
    # A right image of a: (1 - 3/4) / 4, halved for two classes; the wrong one: -(3/4) / 4 / 2.
    assert tally.influence[0] == pytest.approx([1 / 32, 1 / 32, 1 / 32, -3 / 32, 0])


@pytest.mark.parametrize("kind", [recall_tally, f1_tally])
def test_an_influence_is_what_a_little_more_of_a_lesion_changes(case, kind):
    lesions = np.repeat(np.arange(40), 2)
    tally = kind(*case).by_lesion(lesions)
    step = 1e-6
    for lesion in (0, 7, 39):
        weights = np.ones(40)
        weights[lesion] += step
        sums = [
            np.einsum("l,slg->sg", weights, part) for part in (tally.numerators, tally.denominators)
        ]
        changed = (ratio_mean(*sums) - tally.per_seed) / step
        assert tally.influence[:, lesion] == pytest.approx(changed, abs=1e-6)
    assert tally.influence.sum(1) == pytest.approx(np.zeros(3), abs=1e-12)


def test_the_influence_of_a_mean_is_the_deviation_over_n():
    tally = mean_tally([[0.5, 0.7, 0.9]])
    assert tally.influence[0] == pytest.approx([-0.2 / 3, 0, 0.2 / 3])
    assert tally.by_lesion(np.array([4, 4, 1])).influence[0] == pytest.approx([0.2 / 3, -0.2 / 3])


@pytest.mark.parametrize("bad", ["shape", "clusters", "nan"])
def test_bad_scores_are_named(bad):
    scores = np.zeros((2, 4, 1))
    other = np.zeros((2, 5, 1)) if bad == "shape" else scores.copy()
    if bad == "nan":
        other[0, 0] = np.nan
    words = {"shape": "two equal", "clusters": "one per image", "nan": "not finite"}[bad]
    with pytest.raises(ValueError, match=words):
        Tally(scores, other).by_lesion(np.zeros(3))
