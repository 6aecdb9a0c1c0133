import logging

import numpy as np
import pandas as pd
import pytest

from didgen.data.duplicates import Pair, cluster_names
from didgen.data.leaks import (
    LeakError,
    apply_policy,
    conflicting_labels,
    crossing_pairs,
    leak_table,
    relatives_to_drop,
)

# a and b are one lesion, c and d near-duplicates, e and f exact ones; g has the patient of h.
ROWS = {
    "id": list("abcdefghi"),
    "split": ["train", "test", "val", "test", "train", "train", "train", "val", "train"],
    "lesion_id": ["L1", "L1", "", "", "", "", "L2", "L3", ""],
    "patient_id": ["", "", "", "", "", "", "P1", "P1", ""],
    "label": ["MEL", "MEL", "NV", "NV", "MEL", "NV", "BCC", "BCC", "NV"],
}
DUPLICATES = [Pair(2, 3, "near", 0.1), Pair(4, 5, "exact", 0.0)]


@pytest.fixture
def frame():
    return pd.DataFrame(ROWS).assign(cluster=cluster_names(DUPLICATES, ROWS["id"]))


def test_pairs_across_splits_are_named_by_their_closest_relation(frame):
    assert crossing_pairs(frame, DUPLICATES) == [
        Pair(2, 3, "near", 0.1),
        Pair(0, 1, "lesion"),
        Pair(6, 7, "patient"),
    ]
    # The same two images, related in three ways, are one pair.
    both = frame.assign(patient_id=["P9", "P9", *frame["patient_id"][2:]])
    found = crossing_pairs(both, [Pair(0, 1, "exact", 0.0)])
    assert found == [Pair(0, 1, "exact", 0.0), Pair(6, 7, "patient")]


def test_drop_takes_from_train_first_then_val_and_never_from_test(frame, caplog):
    with caplog.at_level(logging.WARNING):
        keep, crossing = apply_policy(frame, DUPLICATES, "drop")
    assert frame.loc[~keep, "id"].tolist() == ["a", "c", "g"]
    assert len(crossing) == 3
    assert "left out: 2 of train, 1 of val" in caplog.text
    left = frame[keep].reset_index(drop=True)
    assert crossing_pairs(left, []) == []


def test_drop_follows_chains_of_relations():
    split = np.array(["train", "train", "test", "train"])
    # 0 is related to 1 and 1 to 2: all three are one group.
    assert relatives_to_drop(split, np.array([0, 0, 0, 1])).tolist() == [True, True, False, False]
    split = np.array(["train", "val", "test"])
    assert relatives_to_drop(split, np.zeros(3, int)).tolist() == [True, True, False]
    assert relatives_to_drop(np.array([]), np.array([], int)).tolist() == []


def test_error_names_counts_pairs_and_remedies(frame):
    message = (
        r"3 pairs of related images stand in two splits: 1 near, 1 lesion, 1 patient "
        r"\(c \(val\) and d \(test\).*on_leak: drop"
    )
    with pytest.raises(LeakError, match=message):
        apply_policy(frame, DUPLICATES, "error")


def test_warn_keeps_everything_and_says_so(frame, caplog):
    with caplog.at_level(logging.WARNING):
        keep, crossing = apply_policy(frame, DUPLICATES, "warn")
    assert keep.all() and len(crossing) == 3 and "they stay where they are" in caplog.text


@pytest.mark.parametrize("policy", ["drop", "error", "warn"])
def test_clean_splits_pass_every_policy(frame, policy):
    clean = frame.assign(split="train")
    keep, crossing = apply_policy(clean, DUPLICATES, policy)
    assert keep.all() and crossing == []


def test_the_table_counts_all_and_lists_the_closest_first(frame):
    keep, crossing = apply_policy(frame, DUPLICATES, "drop")
    told = leak_table(frame, DUPLICATES, crossing, keep, "drop", "By eye.", official=True)
    assert told["clusters"] == {"exact": 1, "near": 1} and told["n_clusters"] == 2
    assert told["n_images"] == 9 and told["n_groups"] == 5 and told["largest_cluster"] == 2
    assert told["n_crossing"] == told["n_pairs"] == 3 and told["dropped"] == ["a", "c", "g"]
    assert told["pairs"][0] == {
        "a": "c", "b": "d", "kind": "near", "distance": 0.1, "split_a": "val", "split_b": "test",
    }  # fmt: skip
    assert told["n_conflicting"] == 1 == conflicting_labels(frame, DUPLICATES)


def test_of_a_grouped_run_the_duplicates_within_splits_are_listed(frame):
    keep = np.ones(9, bool)
    told = leak_table(frame, DUPLICATES, [], keep, "drop", "By eye.", official=False)
    assert [pair["kind"] for pair in told["pairs"]] == ["exact", "near"]
    assert told["n_crossing"] == 0 and told["dropped"] == [] and told["policy"] == "grouped"


def test_long_lists_are_cut_but_counted():
    n = 60
    frame = pd.DataFrame(
        {
            "id": [f"i{k}" for k in range(n)],
            "split": ["train", "test"] * (n // 2),
            "lesion_id": "L",
            "patient_id": "",
            "label": "NV",
            "cluster": "",
        }
    )
    keep, crossing = apply_policy(frame, [], "drop")
    told = leak_table(frame, [], crossing, keep, "drop", "", official=True)
    assert told["n_pairs"] == 900 and len(told["pairs"]) == 500 and len(told["dropped"]) == 30
