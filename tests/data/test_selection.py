import dataclasses

import pandas as pd
import pytest

from didgen.data.selection import check_splits, choose_records, identities
from didgen.data.sources.records import FilePixels, Record, SourceError
from didgen.data.splits import SplitError

BOTH = ("classification", "segmentation")


def records(labels):
    return [
        Record(f"i{n:02d}", label, f"L{n}", "", "own", "", FilePixels("x.png", None))
        for n, label in enumerate(labels)
    ]


def test_limits_are_counted_and_the_draw_depends_on_the_seed_alone():
    many = records(["MEL"] * 20 + ["NV"] * 5 + ["DF"] * 2 + [""] * 9)
    choice = choose_records(many, ("MEL", "NV"), 4, 6, 1, BOTH)
    assert choice.left_out == {"other classes": 2, "over max_per_class": 17, "over max_masks": 3}
    labels = [record.label for record in choice.kept]
    assert (labels.count("MEL"), labels.count("NV"), labels.count("")) == (4, 4, 6)
    assert [r.id for r in choice.kept] == sorted(r.id for r in choice.kept)
    again = choose_records(many[::-1], ("MEL", "NV"), 4, 6, 1, BOTH)
    other = choose_records(many, ("MEL", "NV"), 4, 6, 2, BOTH)
    assert choice == again and choice.kept != other.kept


def test_every_record_is_kept_passed_over_or_excluded():
    many = records(["MEL"] * 4 + ["NV"] * 3 + ["DF"])
    many[0] = dataclasses.replace(many[0], excluded="no class")
    choice = choose_records(many, ("MEL", "NV"), 3, None, 0, BOTH)
    assert [r.id for r in choice.passed_over] == ["i07"]
    assert [r.id for r in choice.excluded] == ["i00"] and choice.left_out["no class"] == 1
    assert len(choice.kept) + sum(choice.left_out.values()) == len(many)
    assert {r.id for r in choice.everyone} == {r.id for r in many}
    choice = choose_records(many, ("MEL", "NV"), 1, None, 0, BOTH)
    passed = [r.id for r in choice.passed_over]
    order = [r.id for r in choice.in_order(passed[1:])]
    assert order == [*(r.id for r in choice.kept), *passed[1:], passed[0], "i00"]


def test_absent_classes_are_named():
    with pytest.raises(SourceError, match=r"asks for \['DF'\].*found \['MEL', 'NV'\]"):
        choose_records(records(["MEL", "NV"]), ("MEL", "DF", "NV"), None, None, 0, BOTH)


def test_without_a_classifier_absent_classes_do_not_matter():
    choice = choose_records(records(["", "NV"]), ("MEL", "NV"), None, None, 0, ("segmentation",))
    assert len(choice.kept) == 2
    with pytest.raises(SourceError, match="leaves none of 1 images"):
        choose_records(records(["DF"]), ("MEL", "NV"), None, None, 0, ("segmentation",))


def test_identities_know_the_masks():
    frame = identities(records(["MEL", "NV"]))
    assert frame["mask"].tolist() == [False, False] and frame["lesion_id"].tolist() == ["L0", "L1"]


def table(splits, labels, masks):
    ids = [f"i{n}" for n in range(len(splits))]
    return pd.DataFrame({"id": ids, "split": splits, "label": labels, "mask": masks})


@pytest.mark.parametrize(
    ("labels", "masks", "message"),
    [
        (["MEL", "NV"] * 3, [True] * 4 + [False] * 2, r"split test: .* and 0 masks in 2 images"),
        (["MEL", "NV"] * 2 + ["NV"] * 2, [True] * 6, r"split test: found labels \['NV'\] and 2"),
    ],
)
def test_every_split_must_be_able_to_evaluate_both_tasks(labels, masks, message):
    splits = ["train", "train", "val", "val", "test", "test"]
    check_splits(table(splits, ["MEL", "NV"] * 3, True), "", BOTH)
    with pytest.raises(SplitError, match=message):
        check_splits(table(splits, labels, masks), "", BOTH)
    with pytest.raises(SplitError, match="no image for val: .*; mend it"):
        check_splits(table(["train"] * 4 + ["test"] * 2, labels, masks), "mend it", BOTH)


def test_a_task_that_is_not_wanted_needs_nothing():
    splits = ["train", "train", "val", "val", "test", "test"]
    diagnosed = table(splits, ["MEL", "NV"] * 3, False)
    outlined = table(splits, "", True)
    check_splits(diagnosed, "", ("classification",))
    check_splits(outlined, "", ("segmentation",))
    with pytest.raises(SplitError, match=r"0 masks in 2 .* set data.tasks: \[classification\]"):
        check_splits(diagnosed, "", BOTH)
    with pytest.raises(SplitError, match=r"found labels \[\] .* set data.tasks: \[segmentation\]"):
        check_splits(outlined, "", BOTH)
