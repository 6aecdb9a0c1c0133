"""Contact sheets: sizes and places by hand."""

import numpy as np
import pytest

from didgen.attention.panels import truth_panel
from didgen.report.sheet import Tile, contact_sheet, pair_picture


def test_tiles_lie_in_rows():
    tiles = [Tile(np.full((10, 20, 3), 40 * k, np.uint8)) for k in range(3)]
    sheet = contact_sheet(tiles, columns=2)
    assert sheet.shape == (6 + 2 * 16, 6 + 2 * 26, 3)
    assert (sheet[6:16, 32:52] == 40).all() and (sheet[22:32, 6:26] == 80).all()
    assert (sheet[22:32, 32:52] == 255).all()


def test_words_stay_under_their_tile():
    tiles = [Tile(np.zeros((10, 60, 3), np.uint8), ("a very long line of words",)) for _ in "ab"]
    sheet = contact_sheet(tiles, columns=2)
    below = sheet[16:]
    assert (below[:, 6:66] < 255).any() and (below[:, 67:72] == 255).all()


def test_tiles_of_different_sizes_are_refused():
    tiles = [Tile(np.zeros((side, side, 3), np.uint8)) for side in (4, 5)]
    with pytest.raises(ValueError, match="expected one size"):
        contact_sheet(tiles, 2)


def test_a_pair_is_shown_with_its_condition():
    image, mask = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), bool)
    mask[2:6, 2:6] = True
    assert pair_picture(image, mask, mask).shape == (8, 24, 3)
    assert pair_picture(image, mask, None).shape == (8, 16, 3)


def test_a_truth_panel_tells_missed_from_added():
    image = np.zeros((8, 8, 3), np.uint8)
    true, found = np.zeros((2, 8, 8), bool)
    true[:4], found[2:6] = True, True
    panel = truth_panel(image, true, found, gap=4, factor=2)
    assert panel.shape == (16, 4 * 16 + 3 * 4, 3)
    last = panel[:, -16:]
    colors = [tuple(last[y, 0].tolist()) for y in (0, 6, 10, 14)]
    assert len(set(colors)) == 4
