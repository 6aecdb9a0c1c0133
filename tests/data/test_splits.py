import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from didgen.data.splits import (
    SplitError,
    carved_split,
    grouped_split,
    related_groups,
    share_of_folds,
)


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


@pytest.mark.parametrize(
    ("share", "most", "expected"),
    [
        (0.25, 20, (1, 4)), (0.2, 20, (1, 5)), (0.3, 20, (3, 10)), (0.4, 20, (2, 5)),
        (0.33, 20, (1, 3)), (0.45, 20, (4, 9)), (0.3, 4, (1, 3)), (0.01, 100, (1, 99)),
        (0.45, 2, (1, 2)),
    ],
)  # fmt: skip
def test_a_share_is_the_nearest_m_of_k_folds(share, most, expected):
    assert share_of_folds(share, most) == expected


@pytest.mark.parametrize(("val", "test"), [(0.15, 0.25), (0.3, 0.3), (0.2, 0.45), (0.05, 0.4)])
def test_shares_are_met_where_groups_are_small(val, test):
    groups = np.arange(600) // 2
    split = grouped_split(np.array(["A", "B", "C"])[groups % 3], groups, val, test, 0)
    assert (split == "test").mean() == pytest.approx(test, abs=0.015)
    assert (split == "val").mean() == pytest.approx(val, abs=0.015)


def test_val_is_carved_out_of_train_alone_and_by_group():
    groups = np.arange(120) // 3
    stated = np.where(groups < 30, "train", "test")
    split = carved_split(stated, np.array(["A", "B"])[groups % 2], groups, 0.2, 0)
    assert (split == "test").tolist() == (stated == "test").tolist()
    assert (split == "val").sum() == 18 and (stated == "train").sum() == 90
    assert not set(groups[split == "val"]) & set(groups[split == "train"])
    for label in (0, 1):
        assert (groups[split == "val"] % 2 == label).sum() == 9
    with pytest.raises(SplitError, match="at least 5 for val_fraction 0.2 of train, as the source"):
        carved_split(["train"] * 3 + ["test"], list("ABAB"), np.arange(4), 0.2, 0)
