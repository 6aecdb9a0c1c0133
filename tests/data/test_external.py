import numpy as np
import pandas as pd
import pytest

from didgen.data.external import choose_external, related_to, relations, tasks_served
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
    learned = np.concatenate([LEARNED, np.zeros(len(rows), bool)])
    return related_to(pd.concat([OWN, table(*rows)]), learned)[len(OWN) :].tolist()


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
    both = table(("ISIC_1", "", "", ""), ("ISIC_1_downsampled", "", "", ""))
    assert related_to(both, np.array([True, False])).tolist() == [True, True]


def test_direct_relations_are_counted_by_kind():
    rows = pd.concat([OWN, table(("a", "L1", "", ""), ("x", "L1", "P1", ""), ("y", "", "", "T"))])
    learned, own = np.array([True, True, False, False] + [False] * 3), np.arange(7) > 3
    assert relations(rows, learned, own) == {"id": 1, "lesion": 2, "patient": 1, "look": 0}


def test_images_of_other_classes_and_without_use_are_left_out_and_counted():
    records = [
        record("b", "NV"), record("a", "MEL"), record("c", "DF"), record("d", "", "d_mask.png"),
        record("e", "", excluded="no class"), record("f", "VASC"),
    ]  # fmt: skip
    choice = choose_external(records, ("MEL", "NV"), ("classification",))
    assert [r.id for r in choice.kept] == ["a", "b"]
    assert [r.id for r in choice.passed_over] == ["c", "d", "f"]
    assert choice.left_out == {
        "other classes": 2, "without what data.tasks needs": 1, "no class": 1
    }  # fmt: skip


BOTH = ("classification", "segmentation")


@pytest.mark.parametrize(
    ("tasks", "records"),
    [
        (("classification",), [record("a", "MEL", "a_mask.png"), record("b", "MEL")]),
        (("segmentation",), [record("a", "MEL"), record("b", "NV")]),
        (BOTH, [record("a", "DF", "a_mask.png")]),
        (BOTH, [record("a", "MEL", "a_mask.png")]),
    ],
)
def test_a_set_that_serves_no_task_is_refused(tasks, records):
    with pytest.raises(SourceError, match="expected images of two lesions or patients"):
        choose_external(records, ("MEL", "NV"), tasks)


def test_what_images_can_test():
    rows = [("MEL", True, "P1"), ("NV", False, "P1"), ("NV", True, "P2")]
    frame = pd.DataFrame(rows, columns=["label", "mask", "patient_id"]).assign(lesion_id="")
    assert tasks_served(frame, BOTH) == list(BOTH)
    # One patient, or one diagnosis, is not enough.
    assert tasks_served(frame[:2], BOTH) == []
    assert tasks_served(frame[1:], BOTH) == []
    assert tasks_served(frame.assign(label="MEL"), BOTH) == ["segmentation"]
