"""The counts of the duplicates benchmark, by hand."""

import pytest

from benchmarks.duplicates import RULES, crossing, recall_and_precision, same_lesion
from didgen.data.duplicates import DuplicateRule


def test_pairs_of_one_lesion_are_counted_once():
    assert same_lesion(["x", "y", "x", "x", "y"]) == {(0, 2), (0, 3), (2, 3), (1, 4)}


def test_recall_is_of_the_true_pairs_and_precision_of_the_found_ones():
    found, true = {(0, 1), (2, 3), (4, 5)}, {(0, 1), (6, 7), (8, 9), (2, 4)}
    assert recall_and_precision(found, true) == (0.25, pytest.approx(1 / 3))
    assert recall_and_precision(set(), true) == (0, 0)


def test_pairs_that_cross_are_counted():
    assert crossing({(0, 1), (1, 2), (0, 2)}, ["train", "train", "test"]) == 2


def test_the_last_rule_is_the_one_that_runs_use():
    assert list(RULES.values())[-1] == DuplicateRule()
