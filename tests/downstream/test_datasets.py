"""Image sets: bytes in memory or on demand, and no leaks between splits."""

import logging
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from didgen.downstream.datasets import (
    DatasetError,
    build,
    check_apart,
    class_codes,
    keep_in_memory,
    read_ahead,
    usable_rows,
)


def frame(*ids: str, **columns: str) -> pd.DataFrame:
    table = pd.DataFrame({"id": ids, "lesion_id": "", "patient_id": "", "parent_ids": ""})
    return table.assign(**columns)


def test_memory_and_files_give_the_same_batches(image_set):
    frame_, _ = usable_rows(image_set("a"), "mask")
    kept, lazy = build(frame_, None), build(frame_, None)
    assert keep_in_memory([kept], memory_gb=1)
    assert not keep_in_memory([lazy], memory_gb=0)
    rows = np.array([5, 0, 3])
    for one, other in zip(kept.batch(rows), lazy.batch(rows), strict=True):
        assert (one == other).all()
    images, masks = kept.batch(rows)
    assert images.shape == (3, 3, 32, 32)
    assert masks.shape == (3, 1, 32, 32)
    assert set(masks.unique().tolist()) == {0, 1}


def test_labels_follow_the_order_of_the_classes(image_set):
    table, _ = usable_rows(image_set("a", n=4), "label")
    assert class_codes([table]) == ["MEL", "NV"]
    assert build(table, None, ["MEL", "NV"]).labels.tolist() == [0, 1, 0, 1]
    with pytest.raises(DatasetError, match=r"found labels \['NV'\]"):
        build(table, None, ["MEL", "DF"])


def test_images_are_squashed_to_the_size_asked_for(image_set):
    table, _ = usable_rows(image_set("a"), "mask")
    images, masks = build(table, 48).batch(np.arange(2))
    assert images.shape[-2:] == masks.shape[-2:] == (48, 48)


def test_rows_without_what_is_needed_are_counted(image_set):
    manifest = image_set("a", n=4, mask=["", "masks/a_1.png", "", "masks/a_3.png"])
    table, left_out = usable_rows(manifest, "mask")
    assert (len(table), left_out) == (2, 2)
    with pytest.raises(DatasetError, match="no image has a mask"):
        usable_rows(image_set("b", n=2, mask=["", ""]), "mask")


def test_a_pair_teaches_segmentation_but_no_class(image_set, caplog):
    """Its label is that of the image whose mask it follows."""
    caplog.set_level(logging.INFO)
    conditions = ["", "masks/a_1.png", "masks/a_2.png", ""]
    manifest = image_set("a", n=4, condition=conditions, label=["MEL", "NV", "", ""])
    table, left_out = usable_rows(manifest, "label")
    assert (table["id"].tolist(), left_out) == (["a_0"], 3)
    assert "3 of 4 images have no label of their own; 2 pairs count as such" in caplog.text
    table, left_out = usable_rows(manifest, "mask")
    assert (len(table), left_out) == (4, 0)
    pairs = image_set("b", n=2, condition=["masks/b_0.png", "masks/b_1.png"])
    with pytest.raises(DatasetError, match=r"no image has a label of its own \(2 pairs"):
        usable_rows(pairs, "label")


def test_a_pair_without_a_condition_teaches_no_class_either(image_set):
    sets = ["images", "pairs", "pairs", ""]
    table, _ = usable_rows(image_set("a", n=4, set=sets), "label")
    assert table["id"].tolist() == ["a_0", "a_3"]


def test_images_of_two_sizes_are_refused(image_set):
    small, large = (usable_rows(image_set(n, size=s), "mask")[0] for n, s in (("a", 32), ("b", 48)))
    with pytest.raises(DatasetError, match="expected one; set image_size"):
        keep_in_memory([build(small, None), build(large, None)], 1)
    mixed = build(pd.concat([small, large], ignore_index=True), None)
    with pytest.raises(DatasetError, match="found 48x48 px, expected 32x32"):
        keep_in_memory([mixed], 1)


def test_unknown_lesions_and_patients_stand_for_themselves(image_set):
    table, _ = usable_rows(image_set("a", n=2, lesion_id=["", "L1"]), "label")
    found = build(table, None, ["MEL", "NV"]).identity()
    assert found["lesion_id"].tolist() == ["a_0", "L1"]
    assert found["patient_id"].tolist() == ["a_0", "L1"]


@pytest.mark.parametrize("column", ["id", "lesion_id", "patient_id"])
def test_a_leak_between_splits_is_refused(column):
    val, test = frame("b"), frame("c")
    val[column] = test[column] = "same"
    with pytest.raises(DatasetError, match=f"{column} in both val and test: 1 \\(same\\)"):
        check_apart(frame("a"), {"val": val, "test": test}, None)


def test_synthetic_children_of_test_images_are_refused():
    held_out = {"val": frame("b"), "test": frame("c", "d")}
    check_apart(frame("a"), held_out, frame("s", parent_ids="a;e"))
    with pytest.raises(DatasetError, match="made from test images: 1 \\(c\\)"):
        check_apart(frame("a"), held_out, frame("s", parent_ids="a;c"))
    with pytest.raises(DatasetError, match="both real and synthetic"):
        check_apart(frame("a"), held_out, frame("a"))


@pytest.mark.parametrize("column", ["id", "lesion_id", "patient_id", "sha256"])
def test_a_set_that_holds_held_out_images_is_refused(column):
    made, val, test = (frame(name, sha256="") for name in "sbc")
    check_apart(frame("a"), {"val": val, "test": test}, made)
    made[column] = test[column] = "same"
    with pytest.raises(DatasetError, match=f"{column} both in test and in the synthetic set: 1"):
        check_apart(frame("a"), {"val": val, "test": test}, made)


@pytest.mark.parametrize("cell", ["['c']", '["a", "c"]', "a|c", "{c}"])
def test_parents_are_found_however_they_are_joined(cell):
    held_out = {"val": frame("b"), "test": frame("c")}
    with pytest.raises(DatasetError, match="made from test images: 1 \\(c\\)"):
        check_apart(frame("a"), held_out, frame("s", parent_ids=cell))


def test_synthetic_images_of_a_held_out_split_are_refused():
    held_out = {"val": frame("b"), "test": frame("c")}
    with pytest.raises(DatasetError, match="whose split is val or test: 1 \\(t\\)"):
        check_apart(frame("a"), held_out, frame("s", "t", split=["train", "test"]))


def test_a_set_that_does_not_say_where_it_comes_from_is_warned_of(caplog):
    held_out = {"val": frame("b"), "test": frame("c")}
    for known in ({"parent_ids": "a"}, {"checkpoint": "ab12"}):
        check_apart(frame("a"), held_out, frame("s", **known))
    assert not caplog.text
    check_apart(frame("a"), held_out, frame("s", "t", checkpoint=["ab12", ""]))
    assert "1 of 2 synthetic images say neither" in caplog.text


def test_a_missing_manifest_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"none\.csv"):
        usable_rows(tmp_path / "none.csv", "label")


ORDER = [np.array([0, 3]), np.array([5, 1]), np.array([2, 2])]


def test_order_and_content_are_those_of_reading_in_turn(image_set):
    table, _ = usable_rows(image_set("a"), "mask")
    lazy, kept = build(table, None), build(table, None)
    keep_in_memory([kept], 1)
    for data in (lazy, kept):
        found = list(read_ahead(data, ORDER))
        assert len(found) == 3
        for (images, masks), rows in zip(found, ORDER, strict=True):
            expected = kept.batch(rows)
            assert torch.equal(images, expected[0]) and torch.equal(masks, expected[1])


def test_the_next_batch_is_read_while_this_one_is_used(image_set, monkeypatch):
    data = build(usable_rows(image_set("a"), "mask")[0], None)
    taken = []
    batch = data.batch
    monkeypatch.setattr(type(data), "batch", lambda self, rows: taken.append(1) or batch(rows))
    batches = read_ahead(data, iter(ORDER))
    next(batches)
    deadline = time.monotonic() + 20
    while len(taken) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(taken) == 3
    batches.close()


def test_a_broken_image_is_named_when_its_batch_is_due(image_set):
    table, _ = usable_rows(image_set("a"), "mask")
    other, _ = usable_rows(image_set("b", size=48), "mask")
    table.loc[3, "image"] = other.loc[0, "image"]
    batches = read_ahead(build(table, None), [np.array([0, 1]), np.array([3])])
    next(batches)
    with pytest.raises(DatasetError, match="found 48x48 px"):
        next(batches)
