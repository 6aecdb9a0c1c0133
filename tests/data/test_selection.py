import pandas as pd
import pytest

from didgen.data.manifest import ManifestError
from didgen.data.selection import check_official, check_splits, choose_records, identities
from didgen.data.sources.records import FilePixels, Record, SourceError
from didgen.data.splits import SplitError


def records(labels):
    return [
        Record(f"i{n:02d}", label, f"L{n}", "", "own", "", FilePixels("x.png", None))
        for n, label in enumerate(labels)
    ]


def test_limits_are_counted_and_the_draw_depends_on_the_seed_alone():
    many = records(["MEL"] * 20 + ["NV"] * 5 + ["DF"] * 2 + [""] * 9)
    kept, left = choose_records(many, ("MEL", "NV"), 4, 6, seed=1)
    assert left == {"other classes": 2, "over max_per_class": 17, "over max_masks": 3}
    labels = [record.label for record in kept]
    assert (labels.count("MEL"), labels.count("NV"), labels.count("")) == (4, 4, 6)
    assert [r.id for r in kept] == sorted(r.id for r in kept)
    again, _ = choose_records(many[::-1], ("MEL", "NV"), 4, 6, seed=1)
    other, _ = choose_records(many, ("MEL", "NV"), 4, 6, seed=2)
    assert kept == again and kept != other


def test_absent_classes_are_named():
    with pytest.raises(SourceError, match=r"asks for \['DF'\].*found \['MEL', 'NV'\]"):
        choose_records(records(["MEL", "NV"]), ("MEL", "DF", "NV"), None, None, 0)


def test_identities_know_the_masks():
    frame = identities(records(["MEL", "NV"]))
    assert frame["mask"].tolist() == [False, False] and frame["lesion_id"].tolist() == ["L0", "L1"]


def table(splits, labels, masks):
    ids = [f"i{n}" for n in range(len(splits))]
    return pd.DataFrame({"id": ids, "split": splits, "label": labels, "mask": masks})


@pytest.mark.parametrize(
    ("splits", "error", "message"),
    [
        (["train", "", ""], SourceError, r"2 images have no split \(i1, i2\); fill"),
        (["train", "dev", "test"], ManifestError, r"here: unknown splits: 1 \(dev\)"),
    ],
)
def test_official_splits_must_be_there_and_known(splits, error, message):
    with pytest.raises(error, match=message):
        check_official(table(splits, "NV", "m"), "here")


@pytest.mark.parametrize(
    ("labels", "masks", "message"),
    [
        (["MEL", "NV"] * 3, [True] * 4 + [False] * 2, r"split test: .* and 0 masks in 2 images"),
        (["MEL", "NV"] * 2 + ["NV"] * 2, [True] * 6, r"split test: found labels \['NV'\] and 2"),
    ],
)
def test_every_split_must_be_able_to_judge_both_tasks(labels, masks, message):
    splits = ["train", "train", "val", "val", "test", "test"]
    check_splits(table(splits, ["MEL", "NV"] * 3, True), "")
    with pytest.raises(SplitError, match=message):
        check_splits(table(splits, labels, masks), "")
    with pytest.raises(SplitError, match="no image for val: .*; mend it"):
        check_splits(table(["train"] * 4 + ["test"] * 2, labels, masks), "mend it")
