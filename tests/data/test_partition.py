import logging

import pandas as pd
import pytest

from didgen.data.duplicates import Pair
from didgen.data.leaks import ACCEPTED, LeakError
from didgen.data.manifest import ManifestError
from didgen.data.partition import Basis, SplitRule, check_before_pixels, choose_basis, partition
from didgen.data.sources.records import SourceError
from didgen.data.splits import SplitError

BOTH = ("classification", "segmentation")


def table(splits, **columns):
    n = len(splits)
    frame = pd.DataFrame({"id": [f"i{k:02d}" for k in range(n)], "split": splits})
    frame = frame.assign(label=(["MEL", "NV"] * n)[:n], lesion_id="", patient_id="", mask=True)
    return frame.assign(**columns)


def rule(requested="auto", on_leak="drop", val=0.15, test=0.25, tasks=BOTH):
    return SplitRule(requested, on_leak, val, test, seed=0, tasks=tasks)


STATED = ["train"] * 4 + ["val"] * 2 + ["test"] * 2


@pytest.mark.parametrize(
    ("splits", "requested", "used", "carve", "said"),
    [
        (STATED, "auto", "official", False, "the source's own .* states train 4, val 2, test 2"),
        (STATED, "official", "official", False, "data.splits: official, and the source states"),
        (STATED, "grouped", "grouped", False, r"own \(train 4, val 2, test 2\) are not used"),
        ([""] * 8, "auto", "grouped", False, "new ones.*auto, and no image states a split"),
        ([""] * 8, "grouped", "grouped", False, r"new ones, .* \(data.splits: grouped\)"),
        (["train"] * 8, "auto", "grouped", False, "the source states train alone"),
        (["train"] * 6 + ["test"] * 2, "auto", "official", True, "no val; it is taken out of tra"),
        (["train"] * 6 + ["test"] * 2, "official", "official", True, "no val; it is taken out"),
    ],
)
def test_the_basis_of_the_splits_is_chosen_and_said(caplog, splits, requested, used, carve, said):
    with caplog.at_level(logging.INFO):
        basis = choose_basis(table(splits), rule(requested))
    assert (basis.used, basis.carve) == (used, carve)
    assert pd.Series(" ".join(caplog.messages)).str.contains(said).all(), caplog.messages


@pytest.mark.parametrize(
    ("splits", "requested", "message"),
    [
        (["train"] * 4 + [""] * 4, "auto", r"auto, but 4 of 8 images have no split \(i04, i05, "),
        ([""] * 8, "official", r"official, but 8 of 8 images have no split .*others state none"),
        (["train"] * 6 + ["val"] * 2, "auto", r"of 8 images none is for test .*train 6, val 2"),
    ],
)
def test_splits_that_are_stated_in_part_are_refused(splits, requested, message):
    with pytest.raises(SourceError, match=message):
        choose_basis(table(splits), rule(requested))


@pytest.mark.parametrize(
    ("frame", "requested", "error", "message"),
    [
        (table(["train"] * 8), rule("official"), SplitError, "no image for val and test"),
        (table(["train"] * 6 + ["val"] * 2), rule("official"), SplitError, "no image for test"),
        (table(STATED, mask=False), rule(), SplitError, r"data.tasks: \[classification\]"),
        (table(STATED, patient_id=["p"] + [""] * 6 + ["p"]), rule(on_leak="error"), LeakError,
         r"1 patient \(i00 \(train\) and i07 \(test\)\)"),
        (table(STATED, id="x"), rule(), ManifestError, "here: duplicate ids: 7"),
    ],
)  # fmt: skip
def test_what_needs_no_pixels_is_refused_before(frame, requested, error, message):
    with pytest.raises(error, match=message):
        check_before_pixels(frame, frame, requested, "here")


def test_val_comes_out_of_train_in_whole_groups_and_test_stays():
    frame = table(["train"] * 40 + ["test"] * 10)
    frame["lesion_id"] = [f"L{k // 2}" for k in range(50)]
    requested = rule(val=0.2)
    found = check_before_pixels(frame, frame, requested, "here")
    assert found.carve
    done = partition(frame, frame, [], found, requested, "")
    split = done.frame["split"]
    assert (split[40:] == "test").all() and split[:40].value_counts().to_dict() == {
        "train": 32, "val": 8,
    }  # fmt: skip
    assert (split.groupby(frame["lesion_id"]).nunique() == 1).all()
    assert done.summary["val_from_train"] and done.summary["used"] == "official"
    assert done.summary["shares"]["val"] == {"requested": 0.2, "actual": 0.2}
    assert done.summary["shares"]["test"] == {"requested": None, "actual": 0.2}


def thin_val(**columns):
    """Of a diagnosis: 200 MEL and 80 NV to train, 30 MEL and 4 NV to validate, 20 each to test.

    Two photographs a lesion. Of a mask alone: 40, 10 and 10.
    """
    counts = [("MEL", "train", 200), ("NV", "train", 80), ("MEL", "val", 30), ("NV", "val", 4),
              ("MEL", "test", 20), ("NV", "test", 20), ("", "train", 40), ("", "val", 10),
              ("", "test", 10)]  # fmt: skip
    rows = [(label, split) for label, split, n in counts for _ in range(n)]
    frame = table([split for _, split in rows], label=[label for label, _ in rows])
    frame["id"] = [f"i{k:03d}" for k in range(len(frame))]
    frame["lesion_id"] = [f"L{k // 2}" for k in range(len(frame))]
    return frame.assign(**columns)


@pytest.mark.parametrize("requested", ["official", "auto"])
def test_a_stated_val_with_few_images_of_a_class_is_made_anew(caplog, requested):
    frame, asked = thin_val(), rule(requested)
    with caplog.at_level(logging.INFO):
        found = check_before_pixels(frame, frame, asked, "here")
    assert found.used == "official" and found.recarve and not found.carve
    assert "its val has 4 of NV, expected 20 of each class" in caplog.text
    done = partition(frame, frame, [], found, asked, "")
    split, stated, labelled = done.frame["split"], frame["split"], frame["label"] != ""
    assert done.keep.all()
    assert ((split == "test") == (stated == "test")).all()
    assert (split[~labelled] == stated[~labelled]).all()
    assert (split.groupby(frame["lesion_id"]).nunique() == 1).all()
    # 15 % of 230 and of 84.
    in_val = frame.loc[labelled & (split == "val"), "label"].value_counts()
    assert abs(in_val["MEL"] - 34.5) <= 4 and abs(in_val["NV"] - 12.6) <= 3
    told = done.summary
    assert told["val_from_train"] and sum(told["stated_val"].values()) == 34
    assert told["stated_val"]["train"] == (labelled & (stated == "val") & (split == "train")).sum()
    assert told["shares"]["val"]["requested"] == 0.15
    assert told["shares"]["val"]["actual"] == pytest.approx(in_val.sum() / 314, abs=1e-4)
    assert told["shares"]["test"] == {"requested": None, "actual": round(50 / 414, 4)}


def test_relatives_without_a_diagnosis_follow_into_val_or_keep_theirs_there():
    """No image gets a relative in another split that it had not."""
    frame = thin_val()
    # Each lesion to train on has a photograph with a mask alone, and so has one of val.
    masks = frame.index[(frame["label"] == "") & (frame["split"] == "train")]
    frame.loc[masks, "lesion_id"] = [f"L{k}" for k in range(len(masks))]
    (mask, *_) = frame.index[(frame["label"] == "") & (frame["split"] == "val")]
    (own, *_) = frame.index[(frame["label"] == "MEL") & (frame["split"] == "val")]
    frame.loc[mask, "lesion_id"] = frame.loc[own, "lesion_id"]
    asked = rule("official", on_leak="error")
    done = partition(frame, frame, [], check_before_pixels(frame, frame, asked, ""), asked, "")
    split = done.frame["split"]
    assert split[own] == split[mask] == "val"
    assert set(split[masks]) == {"train", "val"}


@pytest.mark.parametrize(
    ("frame", "asked"),
    [
        (thin_val(), rule("official", tasks=("segmentation",))),
        # 2 % would be fewer than there are.
        (thin_val(), rule("official", val=0.02)),
        # The rarest class has enough.
        (thin_val(label=["MEL", "NV"] * 207), rule("official")),
    ],
)
def test_a_stated_val_that_can_decide_or_has_nothing_to_decide_is_kept(frame, asked):
    found = check_before_pixels(frame, frame, asked, "here")
    done = partition(frame, frame, [], found, asked, "")
    assert done.frame["split"].tolist() == frame["split"].tolist()
    assert not done.summary["val_from_train"] and done.summary["stated_val"] is None


def chained():
    """Kept i00 .. i39 and, left out, i40 and i41; i40 is a near-duplicate of i00 and of i39, and
    i41 of the lesion of i01 and of the patient of i38.
    """
    frame = table([""] * 42, label=["MEL", "NV"] * 21)
    frame.loc[[1, 41], "lesion_id"] = "L"
    frame.loc[[38, 41], "patient_id"] = "P"
    return frame, [Pair(0, 40, "near", 0.1), Pair(39, 40, "near", 0.1)]


@pytest.mark.parametrize("seed", range(8))
def test_what_a_left_out_image_relates_stays_together(seed):
    everyone, pairs = chained()
    requested = SplitRule("grouped", "drop", 0.25, 0.25, seed, BOTH)
    done = partition(everyone[:40], everyone, pairs, Basis("grouped", ""), requested, "")
    split = done.frame["split"].tolist()
    assert len(split) == 40 and split[0] == split[39] and split[1] == split[38]
    # The left-out image's own cluster is told by two kept ones, and no pair names it.
    assert done.frame["cluster"].tolist() == ["i00", *[""] * 38, "i00"]
    assert done.leaks["n_pairs"] == 0 and done.leaks["n_groups"] == 38


def test_official_splits_are_audited_through_left_out_images_too():
    everyone, pairs = chained()
    everyone["split"] = ["train"] * 20 + ["val"] * 10 + ["test"] * 12
    for policy in ("drop", "warn", "error"):
        requested = rule("official", policy)
        found = Basis("official", "")
        if policy == "error":
            with pytest.raises(LeakError, match="2 through images left out"):
                partition(everyone[:40], everyone, pairs, found, requested, "")
            continue
        done = partition(everyone[:40], everyone, pairs, found, requested, "")
        dropped = ["i00", "i01"] if policy == "drop" else []
        assert done.leaks["dropped"] == dropped and done.keep.sum() == 40 - len(dropped)
        marked = done.frame.get("leak", pd.Series("", index=done.frame.index)) == ACCEPTED
        expected = [] if policy == "drop" else ["i00", "i01", "i38", "i39"]
        assert done.frame.loc[marked, "id"].tolist() == expected


def test_shares_that_are_missed_by_far_are_told_loudly(caplog):
    frame = table([""] * 24)
    frame["patient_id"] = ["p"] * 12 + [f"q{k}" for k in range(12)]
    with caplog.at_level(logging.INFO):
        done = partition(frame, frame, [], Basis("grouped", ""), rule(val=0.1, test=0.1), "")
    shares = done.summary["shares"]
    assert sum(share["actual"] for share in shares.values()) == pytest.approx(1, abs=1e-3)
    for name, share in shares.items():
        level = "WARNING" if abs(share["requested"] - share["actual"]) > 0.05 else "INFO"
        lines = [r for r in caplog.records if r.getMessage().startswith(f"{name}: ")]
        assert [r.levelname for r in lines] == [level]


@pytest.mark.parametrize(("kind", "told"), [("near", True), ("exact", False)])
def test_too_many_look_alikes_are_told_with_the_remedy(caplog, kind, told):
    frame = table([""] * 60)
    chain = [Pair(k, k + 1, kind, 0.1) for k in range(2, 14)]
    partition(frame, frame, chain, Basis("grouped", ""), rule(), "")
    line = "duplicates: 13 of 60 images look alike, directly or through others (i02, i03, i04, "
    assert (line in caplog.text) is told and ("near_duplicates: false" in caplog.text) is told
    caplog.clear()
    partition(frame, frame, chain[:10], Basis("grouped", ""), rule(), "")
    assert "look alike" not in caplog.text


def test_classes_that_a_split_lacks_are_told(caplog):
    labels = ["MEL", "NV"] * 20 + ["DF"] * 3
    frame = table([""] * 43, label=labels, lesion_id=[f"L{min(k, 40)}" for k in range(43)])
    done = partition(frame, frame, [], Basis("grouped", ""), rule(), "")
    where = done.frame.loc[40, "split"]
    absent = " or ".join(split for split in ("train", "val", "test") if split != where)
    assert f"class DF: none of its 3 images is in {absent}, so it is not" in caplog.text
    assert "class MEL" not in caplog.text
    caplog.clear()
    partition(frame, frame, [], Basis("grouped", ""), rule(tasks=("segmentation",)), "")
    assert "class DF" not in caplog.text
