import json

import pandas as pd
import pytest

from didgen.captions.audit import AUDITED, AuditError, audit, cohen_kappa, compare_attribute


def table(**columns):
    """A table of captions; columns not given state nothing."""
    count = len(next(iter(columns.values())))
    empty = {name: [""] * count for name in (*AUDITED, "colors") if name != "main_color"}
    return pd.DataFrame({"id": [f"i{k}" for k in range(count)]} | empty | columns)


def test_kappa_of_known_tables():
    # Both yes 20, only the first 5, only the second 10, both no 15: (0.7 - 0.5) / 0.5.
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert cohen_kappa(first, second) == pytest.approx(0.4)
    assert cohen_kappa(first, first) == 1
    assert cohen_kappa(["a", "b"], ["b", "a"]) == pytest.approx(-1)
    assert cohen_kappa(["a", "a"], ["a", "a"]) is None
    assert cohen_kappa([], []) is None


def test_weighted_kappa_by_hand():
    order = ("small", "medium", "large")
    said, true = ["small", "medium", "large", "small"], ["small", "medium", "large", "large"]
    # Observed distance 2/4, by chance 0.625 + 0.1875 + 0.1875 = 1.
    assert cohen_kappa(said, true, order) == pytest.approx(0.5)
    assert cohen_kappa(said, true) == pytest.approx((0.75 - 0.3125) / 0.6875)
    # The words' order in the alphabet plays no part, only that of `order`.
    near = ["small", "medium", "large", "medium"]
    assert cohen_kappa(near, true, order) > cohen_kappa(said, true, order)


def test_what_is_not_stated_is_left_out_and_counted():
    said = pd.Series(["small", "", "large", "small"])
    true = pd.Series(["small", "small", "", "large"])
    found = compare_attribute(said, true, "size")
    assert (found["n"], found["unclaimed"], found["unmeasured"]) == (2, 1, 1)
    assert found["agreement"] == 0.5
    assert found["confusions"] == [["large", "small", 1]]
    nothing = compare_attribute(pd.Series(["", ""]), true[:2], "size")
    assert nothing["agreement"] is nothing["kappa"] is nothing["weighted_kappa"] is None


def test_audit_compares_by_id_and_shows_the_worst_first():
    claimed = table(
        size=["small", "large", "small"], hair=["none", "dense", "some"],
        colors=["tan; red", "black", "red"], position=["top", "top", "left"],
    )  # fmt: skip
    measured = table(
        size=["small", "small", "large"], hair=["none", "none", "some"],
        colors=["tan; black", "red", "red"], position=["top", "", "left"],
    ).iloc[::-1]  # fmt: skip
    found = audit(claimed, measured)
    assert found["count"] == 3
    assert set(found["attributes"]) == set(AUDITED)
    assert found["attributes"]["main_color"]["agreement"] == pytest.approx(2 / 3)
    assert found["attributes"]["position"]["n"] == 2
    assert [one["id"] for one in found["examples"]] == ["i1", "i2"]
    assert found["examples"][0]["wrong"] == {
        "size": ["large", "small"], "main_color": ["black", "red"], "hair": ["dense", "none"],
    }  # fmt: skip
    assert len(audit(claimed, measured, max_examples=1)["examples"]) == 1
    json.dumps(found, allow_nan=False)


def test_equal_tables_agree_and_leave_no_example():
    one = table(size=["small", "large"], shape=["round", "oval"], colors=["tan", "red"])
    found = audit(one, one)
    assert found["attributes"]["size"]["kappa"] == found["attributes"]["main_color"]["kappa"] == 1
    assert found["examples"] == []


def test_tables_that_cannot_be_compared_are_refused():
    one = table(size=["small", "large"])
    with pytest.raises(AuditError, match="1 images stand in only one"):
        audit(one, one[:1])
    with pytest.raises(AuditError, match="measured table lacks hair"):
        audit(one, one.drop(columns="hair"))
    with pytest.raises(AuditError, match="claimed table has 1 ids"):
        audit(pd.concat([one, one[:1]]), one)
