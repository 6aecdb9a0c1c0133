import logging

import numpy as np
import pytest

from didgen.methods.didgen.layouts import LayoutError, check_layouts, layout_doubts, log_doubts
from didgen.methods.protocol import Request


def rectangle(size=64, rows=(16, 40), columns=(10, 30)):
    mask = np.zeros((size, size), bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


def request(name, mask):
    return Request(name, "MEL", "", 0, mask)


def test_a_plain_mask_is_without_doubt():
    assert layout_doubts(rectangle(), 64) == []
    assert layout_doubts(rectangle(rows=(0, 40)), 64) == []


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((64, 64), bool), "the mask is empty: .*leave it out"),
        (np.ones((64, 64), bool), "the mask is full: .*leave it out"),
        (rectangle(32), "found 32x32 px, expected 64x64 px .*resize"),
        (rectangle()[:48], "found 64x48 px, expected 64x64"),
        (rectangle().astype(np.uint8), "found an array of uint8 .*expected a bool mask"),
        (rectangle()[..., None], r"shape \(64, 64, 1\)"),
    ],
)
def test_masks_that_nothing_can_follow_are_refused(mask, message):
    with pytest.raises(LayoutError, match=message):
        layout_doubts(mask, 64)


def test_doubtful_masks_are_allowed_and_said_to_be():
    two = rectangle() | rectangle(rows=(50, 60), columns=(50, 60))
    frame = ~rectangle(rows=(28, 36), columns=(28, 36))
    dot = rectangle(rows=(20, 21), columns=(20, 21))
    assert ["several lesions" in doubt for doubt in layout_doubts(two, 64)] == [True]
    assert ["all four borders" in doubt for doubt in layout_doubts(frame, 64)] == [True]
    assert ["too small" in doubt for doubt in layout_doubts(dot, 64)] == [True]


def test_each_kind_of_doubt_is_logged_once(caplog):
    dot = rectangle(rows=(20, 21), columns=(20, 21))
    requests = [request(f"P{i}", dot) for i in range(5)] + [request("Q", rectangle())]
    with caplog.at_level(logging.WARNING):
        log_doubts(check_layouts(requests, 64))
    (record,) = caplog.records
    assert record.message.startswith("condition masks of P0, P1, P2 and 2 more: too small")


def test_the_refused_request_is_named():
    with pytest.raises(LayoutError, match="condition mask of P7: the mask is empty"):
        check_layouts([request("P1", None), request("P7", np.zeros((64, 64), bool))], 64)
