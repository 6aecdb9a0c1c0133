import numpy as np

from didgen.report.panels import attention_panel, colorize, draw_contour, overlay


def test_colors_run_from_dark_to_bright_and_clip():
    colors = colorize(np.array([[0.0, 0.5, 1.0, -3.0, 7.0]]))
    assert colors.shape == (1, 5, 3)
    brightness = colors.sum(axis=2)[0]
    assert brightness[0] < brightness[1] < brightness[2]
    assert (colors[0, 3] == colors[0, 0]).all() and (colors[0, 4] == colors[0, 2]).all()


def test_contour_is_the_inner_border_of_the_mask():
    mask = np.zeros((6, 6), bool)
    mask[1:5, 1:5] = True
    drawn = draw_contour(np.zeros((6, 6, 3), np.uint8), mask).any(axis=2)
    expected = mask.copy()
    expected[2:4, 2:4] = False
    np.testing.assert_array_equal(drawn, expected)


def test_a_panel_is_four_pictures_wide():
    image = np.full((8, 8, 3), 100, np.uint8)
    values = np.linspace(0, 1, 64).reshape(8, 8)
    panel = attention_panel(image, values, 1 - values, values > 0.5)
    assert panel.shape == (8, 4 * 8 + 3 * 4, 3) and panel.dtype == np.uint8
    np.testing.assert_array_equal(panel[:, :8], image)
    np.testing.assert_array_equal(panel[:, 12:20], overlay(image, values))
