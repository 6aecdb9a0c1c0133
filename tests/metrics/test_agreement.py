"""Agreement with labels: shares by hand, judges averaged, what is seen instead."""

import numpy as np
import pytest

from didgen.metrics.agreement import class_agreement, seen_instead

LABELS = np.array(["a", "a", "a", "a", "b", "b"])
SEEN = np.array([["a", "a", "a", "b", "b", "a"], ["a", "a", "b", "b", "b", "b"]])


def test_shares_are_means_over_judges():
    found = class_agreement(LABELS, SEEN, confidence=0.95)
    # Judges see 3 and 2 of 4, then 1 and 2 of 2. A vote would not tell a tie from a miss.
    assert found["a"].share == pytest.approx(5 / 8)
    assert found["b"].share == pytest.approx(3 / 4)
    assert (found["a"].n, found["b"].n) == (4, 2)
    assert found["b"].low < 0.75 < found["b"].high < 1


def test_images_of_one_lesion_count_once_for_the_interval():
    alone = class_agreement(LABELS, SEEN, confidence=0.95)["a"]
    related = class_agreement(LABELS, SEEN, np.array([0, 0, 0, 0, 1, 2]), confidence=0.95)["a"]
    assert (alone.share, alone.n) == (related.share, related.n)
    assert (alone.n_independent, related.n_independent) == (4, 1)
    assert related.high - related.low > alone.high - alone.low


def test_what_is_seen_instead():
    table = seen_instead(LABELS, SEEN, ["a", "b", "c"])
    assert table == pytest.approx(np.array([[5 / 8, 3 / 8, 0], [1 / 4, 3 / 4, 0], [0, 0, 0]]))


def test_judgements_of_other_images_are_refused():
    with pytest.raises(ValueError, match="found 6 labels"):
        class_agreement(LABELS, SEEN[:, :5], confidence=0.95)
