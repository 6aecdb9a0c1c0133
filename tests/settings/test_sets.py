"""Further synthetic sets: names, arms and tasks that go together, and those that do not."""

import pytest

from didgen.settings.sets import SyntheticSet, check_sets

BOTH = ("classification", "segmentation")
# The tasks of a set with masks, and of one without.
MADE, UNMASKED = BOTH, ("classification",)


@pytest.mark.parametrize(
    ("arms", "sets", "treatment", "tasks"),
    [
        (("original", "duplicates", "synthetic"), {}, "synthetic", BOTH),
        (("original", "synthetic", "prefix", "prefix-0.5x", "pgan"),
         {"prefix": MADE, "pgan": UNMASKED}, "prefix", BOTH),
        (("original", "pgan"), {"pgan": UNMASKED}, "pgan", ("classification",)),
    ],
)  # fmt: skip
def test_arms_of_this_run_and_of_further_sets_go_together(arms, sets, treatment, tasks):
    assert check_sets(arms, sets, {}, treatment, tasks) is None


@pytest.mark.parametrize(
    ("arms", "sets", "treatment", "words"),
    [
        (("original", "prefx"), {}, "prefx", r"arms: found the synthetic sets \['prefx'\]"),
        (("original", "synthetic"), {"prefix": MADE}, "synthetic", "which no arm names"),
        (("original", "synthetic"), {"synthetic": MADE}, "synthetic", "this run's own set"),
        (("original", "duplicates"), {"duplicates": MADE}, "original", "found the name 'dup"),
        (("original", "classic"), {}, "classic", "found 'classic', expected an arm that adds"),
        (("original", "pseudo"), {"pseudo": MADE}, "synthetic", "found the name 'pseudo'"),
        (
            ("original", "synthetic_only"),
            {"synthetic_only": MADE},
            "synthetic",
            "the name 's",
        ),
        (("original", "synthetic_only"), {}, "synthetic_only", "found 'synthetic_only', expected"),
        (("original", "a-2x"), {"a-2x": MADE}, "a-2x", "found the name 'a-2x'"),
        (("original", "A"), {"A": MADE}, "A", "found the name 'A'"),
        (("original", "pgan"), {"pgan": UNMASKED}, "pgan", "has nothing for segmentation"),
    ],
)
def test_what_does_not_go_together_is_refused(arms, sets, treatment, words):
    with pytest.raises(ValueError, match=words):
        check_sets(arms, sets, {}, treatment, BOTH)


def test_a_set_without_a_task_is_none():
    with pytest.raises(ValueError, match="at least 1"):
        SyntheticSet(metadata="m.csv", tasks=())
