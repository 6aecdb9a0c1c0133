"""Batches read ahead are those that reading in turn gives, and they arrive before they are due."""

import time

import numpy as np
import pytest
import torch

from didgen.downstream.datasets import DatasetError, build, keep_in_memory, usable_rows
from didgen.downstream.feeding import batches_of

ORDER = [np.array([0, 3]), np.array([5, 1]), np.array([2, 2])]


def test_order_and_content_are_those_of_reading_in_turn(image_set):
    table, _ = usable_rows(image_set("a"), "mask")
    lazy, kept = build(table, None), build(table, None)
    keep_in_memory([kept], 1)
    for data in (lazy, kept):
        found = list(batches_of(data, ORDER))
        assert len(found) == 3
        for (images, masks), rows in zip(found, ORDER, strict=True):
            expected = kept.batch(rows)
            assert torch.equal(images, expected[0]) and torch.equal(masks, expected[1])


def test_the_next_batch_is_read_while_this_one_is_used(image_set, monkeypatch):
    data = build(usable_rows(image_set("a"), "mask")[0], None)
    taken = []
    batch = data.batch
    monkeypatch.setattr(type(data), "batch", lambda self, rows: taken.append(1) or batch(rows))
    batches = batches_of(data, iter(ORDER))
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
    batches = batches_of(build(table, None), [np.array([0, 1]), np.array([3])])
    next(batches)
    with pytest.raises(DatasetError, match="found 48x48 px"):
        next(batches)
