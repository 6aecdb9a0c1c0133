import numpy as np
import pandas as pd
import pytest

from didgen.data.duplicates import Pair
from didgen.data.external import choose_external, related_to
from didgen.data.sources.records import FilePixels, Record, SourceError


def record(name, label, mask=None, excluded=""):
    return Record(name, label, "", "", "elsewhere", "", FilePixels(f"{name}.png", mask), excluded)


def table(*rows):
    return pd.DataFrame(rows, columns=["id", "lesion_id", "patient_id"])


OWN = table(("a", "L1", "P1"), ("b", "L2", ""), ("c", "", "P3"), ("left_out", "L2", "P9"))
LEARNED = np.array([True, True, False])


def related(*rows, pairs=()):
    return related_to(OWN, 3, table(*rows), pairs, LEARNED).tolist()


def test_images_are_related_by_id_lesion_and_patient():
    rows = [("a", "", ""), ("x", "L1", ""), ("y", "", "P1"), ("z", "L0", "P0"), ("w", "", "")]
    assert related(*rows) == [True, True, True, False, False]


def test_relatives_of_test_images_stay():
    assert related(("x", "", "P3"), ("c", "", "")) == [False, False]


def test_copies_and_chains_through_images_left_out_or_external_ones_are_related():
    # `x` looks like `b`, `y` is of the patient of `x`, `z` of one whom an image left out relates.
    rows = [("x", "", "P7"), ("y", "", "P7"), ("z", "", "P9"), ("w", "", "")]
    assert related(*rows, pairs=[Pair(1, 3, "near", 0.1)]) == [True, True, True, False]


def test_a_copy_of_a_test_image_stays():
    assert related(("x", "", ""), pairs=[Pair(2, 3, "exact", 0.0)]) == [False]


def test_smaller_copies_of_the_archive_have_the_same_id():
    own = table(("ISIC_1", "", ""))
    assert related_to(
        own, 1, table(("ISIC_1_downsampled", "", "")), (), np.array([True])
    ).tolist() == [True]


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
