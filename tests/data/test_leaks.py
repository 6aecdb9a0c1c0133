import logging

import numpy as np
import pandas as pd
import pytest

from didgen.data.duplicates import Pair, cluster_names
from didgen.data.leaks import (
    LeakError,
    Leaks,
    apply_policy,
    conflicting_labels,
    crossing_pairs,
    find_leaks,
    groups_of,
    in_two_splits,
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


def audit(frame, duplicates, policy):
    groups = groups_of(frame)
    leaks = find_leaks(frame, duplicates, groups)
    return apply_policy(frame, leaks, policy, groups), leaks


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
        keep, leaks = audit(frame, DUPLICATES, "drop")
    assert frame.loc[~keep, "id"].tolist() == ["a", "c", "g"]
    assert len(leaks.pairs) == 3 and leaks.chains == []
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
        audit(frame, DUPLICATES, "error")


def test_warn_keeps_everything_and_says_so(frame, caplog):
    with caplog.at_level(logging.WARNING):
        keep, leaks = audit(frame, DUPLICATES, "warn")
    assert keep.all() and len(leaks.pairs) == 3 and "they stay where they are" in caplog.text


@pytest.mark.parametrize("policy", ["drop", "error", "warn"])
def test_clean_splits_pass_every_policy(frame, policy):
    clean = frame.assign(split="train")
    keep, leaks = audit(clean, DUPLICATES, policy)
    assert keep.all() and not leaks


def test_the_table_counts_all_and_lists_the_closest_first(frame):
    keep, leaks = audit(frame, DUPLICATES, "drop")
    told = leak_table(frame, DUPLICATES, leaks, keep, groups_of(frame), "drop", "By eye.")
    assert told["clusters"] == {"exact": 1, "near": 1} and told["n_clusters"] == 2
    assert told["n_images"] == 9 and told["n_groups"] == 5 and told["largest_cluster"] == 2
    assert told["n_crossing"] == told["n_pairs"] == 3 and told["dropped"] == ["a", "c", "g"]
    assert told["pairs"][0] == {
        "a": "c", "b": "d", "kind": "near", "distance": 0.1, "split_a": "val", "split_b": "test",
    }  # fmt: skip
    assert told["n_conflicting"] == 1 == conflicting_labels(frame, DUPLICATES)


def test_of_a_grouped_run_the_duplicates_within_splits_are_listed(frame):
    keep = np.ones(9, bool)
    groups = groups_of(frame)
    told = leak_table(frame, DUPLICATES, Leaks([], []), keep, groups, "grouped", "By eye.")
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
    keep, leaks = audit(frame, [], "drop")
    told = leak_table(frame, [], leaks, keep, groups_of(frame), "drop", "")
    assert told["n_pairs"] == 900 and len(told["pairs"]) == 500 and len(told["dropped"]) == 30


def test_groups_that_only_a_left_out_image_joins_are_leaks_too(frame, caplog):
    # Of j (left out), e of train and i of train are copies, and so is d of test.
    groups = np.array([0, 0, 1, 2, 2, 3, 4, 5, 2])
    alone = frame.assign(lesion_id="", patient_id="")
    leaks = find_leaks(alone, [], groups)
    assert leaks == Leaks([], [(0, 1), (4, 3)])
    assert in_two_splits(alone["split"].to_numpy(), groups).tolist() == (
        [True, True, False, True, True, False, False, False, True]
    )
    with caplog.at_level(logging.WARNING):
        keep = apply_policy(alone, leaks, "drop", groups)
    assert alone.loc[~keep, "id"].tolist() == ["a", "e", "i"]
    assert "2 pairs of related images stand in two splits: 2 through images left out" in caplog.text
    told = leak_table(alone, [], leaks, keep, groups, "drop", "By eye.")
    assert told["n_crossing"] == 2 == told["n_through_left_out"] and told["n_pairs"] == 0
    assert told["through_left_out"] == [{"a": "a", "b": "b"}, {"a": "e", "b": "d"}]
    with pytest.raises(LeakError, match=r"2 through images left out \(a \(train\) and b \(test\)"):
        apply_policy(alone, leaks, "error", groups)


def alike(**columns: list[str]) -> list[set[int]]:
    """The groups, as sets of row numbers in their order."""
    groups = groups_of(pd.DataFrame(columns)).tolist()
    return [{k for k, own in enumerate(groups) if own == group} for group in dict.fromkeys(groups)]


def test_images_of_one_lesion_or_one_patient_belong_together():
    found = alike(lesion_id=["a", "a", "b", "c", ""], patient_id=["p", "p", "p", "q", ""])
    assert found == [{0, 1, 2}, {3}, {4}]


def test_a_patient_known_for_some_images_of_a_lesion_holds_them_all():
    # By the patient's name where known, else by the lesion's, the first two would be apart.
    assert alike(lesion_id=["a", "a", "b"], patient_id=["", "p", "p"]) == [{0, 1, 2}]


def test_unknown_relates_to_nothing_nor_does_a_missing_column():
    assert alike(lesion_id=["", ""], patient_id=["", ""]) == [{0}, {1}]
    assert alike(lesion_id=["a", "a"]) == [{0, 1}]
    assert alike(id=["x", "y"]) == [{0}, {1}]


def test_a_lesion_and_a_patient_of_one_name_are_not_the_same():
    assert alike(lesion_id=["1", "2"], patient_id=["2", "3"]) == [{0}, {1}]


def test_look_alikes_count_as_one_lesion():
    """Where ids are missing, all that is known of two photographs of a lesion is their looks."""
    found = alike(lesion_id=["", "", "a", "a"], cluster=["c1", "c1", "", ""])
    assert found == [{0, 1}, {2, 3}]
    assert alike(lesion_id=["x", "y", "y"], cluster=["c1", "c1", ""]) == [{0, 1, 2}]
