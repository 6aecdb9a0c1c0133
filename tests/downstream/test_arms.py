"""Arms: their names, what each adds to the real images, and what is refused."""

import pandas as pd
import pytest

from didgen.downstream.arms import compose, proportionate
from didgen.settings.arms import DEFAULT_ARMS, Arm, ArmError, check_control, of_task, parse_arm


def rows(name: str, **counts: int) -> pd.DataFrame:
    labels = [code for code, n in counts.items() for _ in range(n)]
    return pd.DataFrame({"id": [f"{name}{k}" for k in range(len(labels))], "label": labels})


REAL, MADE = rows("r", MEL=6, NV=14), rows("s", MEL=30, NV=10)


def test_names_are_read():
    assert parse_arm("original") == Arm("original", "original")
    assert parse_arm("synthetic_only") == Arm("synthetic_only", "synthetic_only", "synthetic")
    assert parse_arm("pseudo_masks") == Arm("pseudo_masks", "pseudo")
    assert parse_arm("duplicates-2x") == Arm("duplicates-2x", "duplicates", None, 2.0)
    assert parse_arm("prefix_only") == Arm("prefix_only", "synthetic", "prefix_only")
    found = parse_arm("synthetic-0.25x")
    assert (found.kind, found.set_name, found.ratio) == ("synthetic", "synthetic", 0.25)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Synthetic",
        "a/b",
        "synthetic-x",
        "synthetic-0x",
        "classic-2x",
        "pseudo-1x",
        "synthetic_only-2x",
        "a-1.x",
        "a--1x",
    ],
)
def test_other_names_are_refused(name):
    with pytest.raises(ArmError, match="expected"):
        parse_arm(name)


def test_masks_have_no_classes_to_balance():
    assert of_task(DEFAULT_ARMS, "classification") == list(DEFAULT_ARMS)
    left = set(DEFAULT_ARMS) - set(of_task(DEFAULT_ARMS, "segmentation"))
    assert left == {"oversampled", "weighted"}


def test_what_is_lacking_in_one_task_alone_is_labelled_there_alone():
    arms = ("original", "pseudo", "pseudo_labels", "pseudo_masks")
    assert of_task(arms, "classification") == ["original", "pseudo", "pseudo_labels"]
    assert of_task(arms, "segmentation") == ["original", "pseudo", "pseudo_masks"]
    both = ("classification", "segmentation")
    check_control("pseudo", "synthetic", both)
    check_control("pseudo_masks", "synthetic", both[1:])
    for control in ("pseudo_labels", "pseudo_masks"):
        with pytest.raises(ValueError, match=f"found '{control}', which is for .* alone"):
            check_control(control, "synthetic", both)


def test_a_set_without_masks_has_no_segmenter():
    arms, sets = ("original", "duplicates", "pgan-0.5x", "both"), {"pgan": ("classification",)}
    assert of_task(arms, "classification", sets) == list(arms)
    assert of_task(arms, "segmentation", sets) == ["original", "duplicates", "both"]


@pytest.mark.parametrize("name", ["original", "classic", "oversampled", "weighted", "pseudo"])
def test_arms_of_real_images_add_nothing(name):
    assert len(compose(parse_arm(name), REAL, MADE, True, 0)) == 0


def test_duplicates_match_the_synthetic_set_in_every_class():
    added = compose(parse_arm("duplicates"), REAL, MADE, True, 0)
    assert added["label"].value_counts().to_dict() == {"MEL": 30, "NV": 10}
    assert set(added["id"]) <= set(REAL["id"])
    # 30 of 6: each five times; 10 of 14: none twice.
    assert set(added.loc[added["label"] == "MEL", "id"].value_counts()) == {5}
    assert added.loc[added["label"] == "NV", "id"].is_unique


def test_duplicates_without_classes_match_the_number_alone():
    added = compose(parse_arm("duplicates"), REAL, MADE, False, 0)
    assert len(added) == 40 and set(added["id"].value_counts()) == {2}


def test_an_arm_of_synthetic_images_alone_takes_all_of_the_set():
    added = compose(parse_arm("synthetic_only"), REAL, MADE, True, 0)
    assert sorted(added["id"]) == sorted(MADE["id"])
    with pytest.raises(ValueError, match="expected an arm without synthetic images"):
        check_control("synthetic_only", "synthetic", ("classification",))


@pytest.mark.parametrize("kind", ["synthetic", "duplicates"])
def test_a_ratio_counts_real_images_and_keeps_the_shares(kind):
    for ratio, n in ((0.25, 5), (0.5, 10), (2, 40)):
        added = compose(parse_arm(f"{kind}-{ratio}x"), REAL, MADE, True, 0)
        assert len(added) == n
        assert abs((added["label"] == "MEL").sum() - 0.75 * n) <= 1


def test_smaller_ratios_are_parts_of_larger_ones():
    small, large = (
        set(compose(parse_arm(f"s-{ratio}x"), REAL, MADE, True, 0)["id"]) for ratio in (0.5, 1.5)
    )
    assert small < large <= set(MADE["id"])
    few, more = (set(proportionate(REAL, count, True, 0)["id"]) for count in (7, 9))
    assert len(few - more) < 2


def test_a_ratio_that_the_set_cannot_fill_is_refused():
    with pytest.raises(
        ArmError, match=r"found 40 synthetic images for 20 real ones.*at most 2.00x"
    ):
        compose(parse_arm("synthetic-4x"), REAL, MADE, True, 0)


def test_missing_sets_and_classes_are_refused():
    for name in ("duplicates", "ours", "synthetic_only"):
        with pytest.raises(ArmError, match="--synthetic metadata.csv"):
            compose(parse_arm(name), REAL, None, True, 0)
    with pytest.raises(ArmError, match="3 images of DF, of which there is no real"):
        compose(parse_arm("duplicates"), REAL, rows("s", DF=3), True, 0)


@pytest.mark.parametrize("name", ["synthetic-0.5x", "duplicates-0.5x"])
def test_every_seed_draws_its_own_part(name):
    """The claim is then about the set, not about one draw from it."""
    drawn = [set(compose(parse_arm(name), REAL, MADE, True, seed)["id"]) for seed in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1]
    assert len(set(map(frozenset, drawn))) == 3
    real = [set(proportionate(REAL, 7, True, seed)["id"]) for seed in (0, 1)]
    assert real[0] != real[1]
