"""The results of a report: what measures are called, which row decides, what averages are over."""

import json
import shutil
from pathlib import Path

import pytest

from didgen.report.sections import results
from didgen.settings.report import Settings


def edit(run: Path, folder: str, **measures: object) -> None:
    for path in (run / folder).glob("*/seed*/metrics.json"):
        told = json.loads(path.read_text())
        told["test"] |= measures
        path.write_text(json.dumps(told))


def difference(arm: str, found: float, p: float, answer: str) -> dict:
    return {
        "arm": arm, "control": "original", "difference": found, "n_corrected_for": 1,
        "interval": [found - 0.02, found + 0.02], "p": p, "p_uncorrected": p,
        "verdict": answer,
    }  # fmt: skip


@pytest.fixture
def many_arms(own_run: Path) -> Path:
    shutil.copytree(own_run / "classify" / "original", own_run / "classify" / "duplicates")
    for path in (own_run / "classify" / "duplicates").glob("seed*/metrics.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"arm": "duplicates"}))
    settings = own_run / "verdict" / "config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"classify_arms": None}))
    path = own_run / "verdict.json"
    told = json.loads(path.read_text())
    averages = dict.fromkeys(("precision", "recall", "f1"), 0.5)
    edit(own_run, "classify", weighted=averages)
    told["tasks"]["classification"]["comparisons"] = {
        "original": [
            difference("synthetic", 0.05, 0.0002, "helps"),
            difference("duplicates", -0.01, 0.4, "inconclusive"),
        ]
    }
    path.write_text(json.dumps(told))
    return own_run


def table(run: Path, place: int):
    return results.section(run, Settings()).content["tasks"][place]["tables"][0]


def test_measures_have_their_names_and_units(own_run):
    edit(own_run, "segment", hd95=4.5, hd95_median=3.5, threshold_jaccard=0.7, boundary_iou=0.4)
    names = {row.heading for row in table(own_run, 1).rows}
    assert names >= {
        "Dice", "HD95 in px", "HD95 in px, median over images", "boundary IoU",
        "Jaccard, below 0.65 counted as 0",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("metric", "row"),
    [("balanced accuracy", "balanced accuracy"), ("macro F1", "F1, macro"), ("accuracy", "")],
)
def test_the_measure_that_decides_is_marked(own_run, metric, row):
    path = own_run / "verdict.json"
    told = json.loads(path.read_text())
    told["tasks"]["classification"]["metric"] = metric
    path.write_text(json.dumps(told))
    marked = [each.heading for each in table(own_run, 0).rows if each.kind == "leading"]
    assert marked == ([row] if row else [])


def test_arms_in_rows_stand_beside_their_difference_to_the_original_images(many_arms):
    """The paper's Tables 2 and 3: sets in rows, measures in columns, here with interval and p."""
    found = table(many_arms, 0)
    assert [row.heading for row in found.rows] == ["original", "duplicates", "synthetic"]
    assert found.columns[:2] == (
        "balanced accuracy, difference to original [95 %]", "p, uncorrected",
    )  # fmt: skip
    assert {"precision, weighted", "recall, weighted", "F1, weighted"} <= set(found.columns)
    cells = {row.heading: [cell.text for cell in row.cells[:2]] for row in found.rows}
    assert cells == {
        "original": ["", ""],
        "duplicates": ["\N{MINUS SIGN}0.010 [\N{MINUS SIGN}0.030, 0.010]", "0.400"],
        "synthetic": ["+0.050 [0.030, 0.070]", "< 0.001"],
    }


def test_the_note_says_what_averages_are_over(own_run):
    edit(own_run, "classify", averaging={"micro": "over images", "macro": "over classes"})
    edit(own_run, "segment", averaging="per image, then mean", empty_masks="agree")
    assert table(own_run, 0).note.endswith("micro: over images; macro: over classes")
    assert table(own_run, 1).note.endswith("Averages: per image, then mean; agree")


def test_more_than_two_arms_stand_in_rows(own_run):
    import shutil

    shutil.copytree(own_run / "classify" / "original", own_run / "classify" / "duplicates")
    for seed in range(3):
        path = own_run / "classify" / "duplicates" / f"seed{seed}" / "metrics.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"arm": "duplicates"}))
    told = json.loads((own_run / "verdict" / "config.json").read_text())
    settings = own_run / "verdict" / "config.json"
    settings.write_text(json.dumps(told | {"classify_arms": None}))
    entry = results.section(own_run, Settings()).content["tasks"][0]
    assert [row.heading for row in entry["tables"][0].rows] == [
        "original",
        "duplicates",
        "synthetic",
    ]
    assert "balanced accuracy" in entry["tables"][0].columns
    # Of each class: classes in rows, arms in columns, no differences.
    assert entry["tables"][1].columns == ("original", "duplicates", "synthetic")
