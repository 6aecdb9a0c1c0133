import numpy as np
import pandas as pd
import pytest

from didgen.data.external import choose_external, related_to
from didgen.data.sources.records import FilePixels, Record, SourceError


def record(name, label, mask=None, excluded=""):
    return Record(name, label, "", "", "elsewhere", "", FilePixels(f"{name}.png", mask), excluded)


def table(*rows):
    return pd.DataFrame(rows, columns=["id", "lesion_id", "patient_id", "cluster"])


OWN = table(
    ("a", "L1", "P1", ""), ("b", "L2", "", "K"), ("c", "", "P3", "T"), ("left_out", "L2", "P9", "")
)  # fmt: skip
LEARNED = np.array([True, True, False, False])


def related(*rows):
    return related_to(OWN, table(*rows), LEARNED).tolist()


def test_images_are_related_by_id_lesion_patient_and_look():
    rows = [("a", "", "", ""), ("x", "L1", "", ""), ("y", "", "P1", ""), ("z", "", "", "K")]
    assert related(*rows, ("w", "L0", "P0", "")) == [True, True, True, True, False]


def test_relatives_of_test_images_stay():
    assert related(("x", "", "P3", ""), ("c", "", "", ""), ("y", "", "", "T")) == [False] * 3


def test_images_are_related_through_others():
    # `y` is of the patient of `x`, a copy of `b`; an image that the run left out relates `z`.
    rows = [("x", "", "P7", "K"), ("y", "", "P7", ""), ("z", "", "P9", ""), ("w", "", "", "")]
    assert related(*rows) == [True, True, True, False]


def test_smaller_copies_of_the_archive_have_the_same_id():
    own, smaller = table(("ISIC_1", "", "", "")), table(("ISIC_1_downsampled", "", "", ""))
    assert related_to(own, smaller, np.array([True])).tolist() == [True]


def test_images_of_other_classes_are_left_out_and_counted():
    records = [
        record("b", "NV"), record("a", "MEL"), record("c", "DF"), record("d", "", "d_mask.png"),
        record("e", "", excluded="no class"), record("f", "VASC"),
    ]  # fmt: skip
    choice = choose_external(records, ("MEL", "NV"), ("classification",), "elsewhere")
    assert [r.id for r in choice.kept] == ["a", "b", "d"]
    assert choice.left_out == {"other classes": 2, "no class": 1}


@pytest.mark.parametrize(
    ("tasks", "records"),
    [
        (("classification",), [record("a", "MEL", "a_mask.png"), record("b", "MEL")]),
        (("segmentation",), [record("a", "MEL"), record("b", "NV")]),
        (("classification", "segmentation"), [record("a", "DF", "a_mask.png")]),
    ],
)
def test_a_set_that_serves_no_task_is_refused(tasks, records):
    with pytest.raises(SourceError, match="elsewhere.*expected at least two diagnoses or one mask"):
        choose_external(records, ("MEL", "NV"), tasks, "elsewhere")
