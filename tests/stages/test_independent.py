"""Which images are independent: lesions and patients, known for all, for some or for none."""

import pandas as pd

from didgen.stages.independent import units_of


def alike(**columns: list[str]) -> list[set[int]]:
    """The groups, as sets of row numbers in their order."""
    units = units_of(pd.DataFrame(columns)).tolist()
    return [{k for k, own in enumerate(units) if own == unit} for unit in dict.fromkeys(units)]


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
