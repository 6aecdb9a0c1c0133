import numpy as np

from didgen.attention.panels import attention_panel, colorize, draw_contour, enlarge, overlay


def test_colors_run_from_dark_to_bright_and_clip():
    colors = colorize(np.array([[0.0, 0.5, 1.0, -3.0, 7.0]]))
    assert colors.shape == (1, 5, 3)
    brightness = colors.sum(axis=2)[0]
    assert brightness[0] < brightness[1] < brightness[2]
    assert (colors[0, 3] == colors[0, 0]).all() and (colors[0, 4] == colors[0, 2]).all()


def test_contour_has_a_bright_line_within_and_a_dark_rim_without():
    mask = np.zeros((8, 8), bool)
    mask[2:6, 2:6] = True
    drawn = draw_contour(np.full((8, 8, 3), 128, np.uint8), mask)
    bright, dark = (drawn.max(axis=2) > 200), (drawn.max(axis=2) < 50)
    inner = mask.copy()
    inner[3:5, 3:5] = False
    np.testing.assert_array_equal(bright, inner)
    assert dark.sum() == 4 * 4 and not (dark & mask).any()


def test_a_panel_is_four_enlarged_pictures_wide():
    image = np.full((8, 8, 3), 100, np.uint8)
    values = np.linspace(0, 1, 64).reshape(8, 8)
    panel = attention_panel(image, values, 1 - values, values > 0.5)
    assert panel.shape == (16, 4 * 16 + 3 * 4, 3) and panel.dtype == np.uint8
    np.testing.assert_array_equal(panel[:, :16], enlarge(image, 2))
    np.testing.assert_array_equal(panel[::2, 20:36:2], overlay(image, values))
