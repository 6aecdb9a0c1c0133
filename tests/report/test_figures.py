"""Charts: positions worked by hand, words for those who cannot see them, bad input."""

import re
import xml.etree.ElementTree as ET

import pytest

from didgen.report.figures import (
    Line,
    arms_chart,
    histogram,
    interval_chart,
    line_chart,
    split_histograms,
)
from didgen.report.scales import Scale, linear_ticks, log_ticks, padded, tick_label


def test_scale_maps_linearly_and_by_logarithm() -> None:
    assert Scale(0, 10, 100, 200)(2.5) == 125
    assert Scale(0, 10, 200, 100)(2.5) == 175
    assert Scale(0.01, 1, 0, 80, log=True)(0.1) == pytest.approx(40)


def test_ticks_are_round_values_within_the_range() -> None:
    assert linear_ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert linear_ticks(-0.034, 0.034) == [-0.02, 0, 0.02]
    assert linear_ticks(3, 20250) == [5000, 10000, 15000, 20000]
    assert log_ticks(0.04, 3) == [0.05, 0.1, 0.2, 0.5, 1, 2]
    assert log_ticks(1e-4, 2) == [1e-4, 1e-3, 1e-2, 1e-1, 1]
    with pytest.raises(ValueError, match="low < high"):
        linear_ticks(1, 1)
    with pytest.raises(ValueError, match="0 < low"):
        log_ticks(0, 1)


def test_labels_and_margins() -> None:
    assert [tick_label(v) for v in (0.2, -0.5, 20000, 250.0)] == ["0.2", "−0.5", "20k", "250"]
    assert padded([0, 10], 0.1) == (-1, 11)
    low, high = padded([0.5])
    assert low < 0.5 < high


def test_line_chart_draws_its_points() -> None:
    chart = line_chart("k", "A", [Line("a", [0, 1], [0, 1], series=1)], "step", "loss")
    root = ET.fromstring(str(chart.svg))
    line = root.find(".//polyline")
    points = [tuple(map(float, p.split(","))) for p in line.get("points").split()]
    assert line.get("class") == "line s1"
    assert points[0][0] < points[1][0] and points[0][1] > points[1][1]
    assert "a from 0 to 1" in root.find("desc").text
    assert chart.legend == (("a", 1),)


def test_a_single_point_is_a_dot_and_no_point_an_error() -> None:
    chart = line_chart("k", "A", [Line("a", [5], [0.5])], "step", "loss")
    assert ET.fromstring(str(chart.svg)).find(".//circle") is not None
    with pytest.raises(ValueError, match="no points"):
        line_chart("k", "A", [], "step", "loss")
    with pytest.raises(ValueError, match="logarithmic"):
        line_chart("k", "A", [Line("a", [1, 2], [0, 1])], "step", "loss", log=True)


def test_histogram_counts_into_bins() -> None:
    chart = histogram("k", "IoU", [0.0, 0.51, 0.52, 1.0], "IoU", bins=2)
    root = ET.fromstring(str(chart.svg))
    heights = [float(bar.get("height")) for bar in root.findall(".//rect")]
    assert heights[1] == pytest.approx(3 * heights[0], rel=0.01)
    assert "mean 0.508" in root.find("desc").text
    for bad in ([], [1.2]):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            histogram("k", "IoU", bad, "IoU")


def test_split_histograms_compare_shares_not_counts() -> None:
    groups = {"train": [0.1, 0.1, 0.1, 0.9], "test": [0.2, 1.0]}
    root = ET.fromstring(str(split_histograms("k", "areas", groups, "area", bins=2).svg))
    heights = [float(bar.get("height")) for bar in root.findall(".//rect")]
    assert heights[0] == pytest.approx(3 * heights[1], abs=0.1)
    assert heights[2:] == pytest.approx(2 * [2 * heights[1]], abs=0.2)
    medians = [float(mark.get("x1")) for mark in root.findall(".//line[@class='mean']")]
    assert medians == pytest.approx([76 + 0.1 * 314, 76 + 0.6 * 314], abs=0.1)
    assert "train: 4 values, 0.100 to 0.900, median 0.100" in root.find("desc").text
    for bad in ({}, {"train": []}, {"train": [1.2]}, {"train": [-0.1]}):
        with pytest.raises(ValueError, match="the chart 'areas'"):
            split_histograms("k", "areas", bad, "area")


def test_interval_chart_says_whether_zero_is_inside() -> None:
    inside = str(interval_chart("k", "d", 0.01, -0.02, 0.04, "x", "original").svg)
    outside = str(interval_chart("k", "d", -0.03, -0.05, -0.01, "x", "original").svg)
    assert "contains zero" in inside and "does not contain zero" in outside
    center = [float(re.search(r'point" cx="([\d.]+)', svg)[1]) for svg in (inside, outside)]
    assert center[0] > 200 > center[1]
    assert "original better" in inside


def test_arms_chart_has_a_dot_a_seed_and_no_band_for_one() -> None:
    three = str(arms_chart("k", "d", {"a": [0.5, 0.6, 0.7], "b": [0.6, 0.6, 0.6]}, "x").svg)
    assert three.count("<circle") == 6 and three.count("<rect") == 2
    one = str(arms_chart("k", "d", {"a": [0.5]}, "x").svg)
    assert one.count("<circle") == 1 and "<rect" not in one


@pytest.mark.parametrize("text", ["<script>", '"><img onerror=x>', "a & b"])
def test_labels_are_escaped(text: str) -> None:
    charts = [
        line_chart("k", text, [Line(text, [0, 1], [0, 1])], text, text),
        histogram("k", text, [0.5], text),
        split_histograms("k", text, {text: [0.5]}, text),
        arms_chart("k", text, {text: [0.5, 0.6]}, text),
        interval_chart("k", text, 0.1, 0, 0.2, text, text),
    ]
    for chart in charts:
        root = ET.fromstring(str(chart.svg))
        assert root.find("title").text == text
        assert root.find(".//script") is None and root.find(".//img") is None
