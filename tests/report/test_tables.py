"""Tables and numbers: known values, gaps, bad input."""

import pytest

from didgen.report.numbers import (
    digits,
    listed,
    mean_sd,
    megabytes,
    number,
    p_value,
    plural,
    whole,
)
from didgen.report.tables import arms_table, bars, confusion_table, count_table


def test_mean_and_sample_standard_deviation() -> None:
    assert mean_sd([1.0, 2.0, 3.0]) == (2.0, 1.0)
    assert mean_sd([0.5]) == (0.5, None)
    with pytest.raises(ValueError, match="no values"):
        mean_sd([])


def test_digits_signs_and_gaps() -> None:
    assert digits(0.12345) == "0.123"
    assert digits(-0.0125, sign=True) == "−0.013" or digits(-0.0125, sign=True) == "−0.012"
    assert digits(0.02, sign=True) == "+0.020"
    assert digits(-0.00001, sign=True) == "0.000"
    assert digits(None) == "–"
    assert str(number(0.123456789)) == '<data value="0.123456789">0.123</data>'
    assert "not available" in number(None)


def test_small_p_values_are_bounds() -> None:
    assert p_value(0.0421).striptags() == "0.042"
    assert "0.00012" in p_value(0.00012) and "&lt;" in p_value(0.00012)


def test_words_for_counts() -> None:
    assert plural(1, "seed") == "1 seed" and plural(0, "pair") == "0 pairs"
    assert whole(20000) == "20\u202f000"
    assert megabytes(11_400_000) == "11.4 MB" and megabytes(12) == "12 bytes"
    assert listed(["a", "b", "c"]) == "a, b and c" and listed([]) == ""


def test_counts_add_up() -> None:
    table = count_table("c", "class", {"MEL": {"train": 3, "val": 1}, "NV": {"train": 4}})
    assert table.columns == ("train", "val", "all")
    values = [[cell.value for cell in row.cells] for row in table.rows]
    assert values == [[3, 1, 4], [4, 0, 4], [7, 1, 8]]


def test_arms_are_compared_with_the_first() -> None:
    measures = {"Dice": {"original": [0.8, 0.9], "synthetic": [0.9, 0.9]}, "IoU": {"original": [1]}}
    table = arms_table("c", "m", measures, ["original", "synthetic"], leading="Dice")
    assert table.columns == ("original", "synthetic", "synthetic − original")
    first, second = table.rows
    assert first.kind == "leading" and first.cells[2].value == pytest.approx(0.05)
    assert first.cells[0].spread == pytest.approx(0.0707, abs=1e-4)
    assert second.cells[1].value is None and second.cells[2].value is None


def test_confusions_are_summed_and_shaded_by_row() -> None:
    table = confusion_table("c", ["A", "B"], [[[3, 1], [0, 0]], [[2, 2], [0, 0]]])
    assert [cell.value for cell in table.rows[0].cells] == [5, 3]
    assert table.rows[0].cells[0].share == 0.625 and table.rows[1].cells[0].share == 0
    with pytest.raises(ValueError, match="2 x 2"):
        confusion_table("c", ["A", "B"], [[[1]]])


def test_bars_know_their_share() -> None:
    found = bars({"light": 6, "dark": 2})
    assert [(bar.share, bar.length) for bar in found] == [(0.75, 1.0), (0.25, pytest.approx(1 / 3))]
    assert bars({}) == () and bars({"none": 0}) == ()
