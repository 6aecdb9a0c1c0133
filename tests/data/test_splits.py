import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from didgen.data.splits import SplitError, grouped_split, related_groups


def test_images_are_related_through_chains_of_lesions_and_patients():
    lesions = ["L1", "L1", "L2", "L3", "", ""]
    patients = ["", "P1", "P1", "P2", "", ""]
    groups = related_groups(lesions, patients)
    assert groups[0] == groups[1] == groups[2]
    assert len({groups[0], groups[3], groups[4], groups[5]}) == 4


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), patients=st.integers(30, 80))
def test_no_group_crosses_and_every_split_has_its_share(seed, patients):
    rng = np.random.default_rng(seed)
    groups = np.sort(rng.integers(0, patients, 400))
    strata = rng.choice(["A", "B", "C"], patients)[groups]
    split = grouped_split(strata, groups, 0.15, 0.25, seed)
    for group in np.unique(groups):
        assert len(set(split[groups == group])) == 1
    shares = {name: (split == name).mean() for name in ("train", "val", "test")}
    assert abs(shares["test"] - 0.25) < 0.1 and abs(shares["val"] - 0.15) < 0.1
    np.testing.assert_array_equal(split, grouped_split(strata, groups, 0.15, 0.25, seed))


def test_too_few_groups_are_refused():
    with pytest.raises(SplitError, match="found 2 independent groups"):
        grouped_split(["A"] * 4, np.array([0, 0, 1, 1]), 0.15, 0.25, 0)


def test_too_few_images_of_every_class_are_refused():
    with pytest.raises(SplitError, match="found at most 3 images of a class, expected at least 4"):
        grouped_split(["A", "B"] * 3, np.arange(6), 0.15, 0.25, 0)
