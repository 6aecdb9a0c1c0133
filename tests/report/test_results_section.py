"""The results of a report: what measures are called, which row decides, what averages are over."""

import json
from pathlib import Path

import pytest

from didgen.report.sections import results
from didgen.stages.report import Settings


def edit(run: Path, folder: str, **measures: object) -> None:
    for path in (run / folder).glob("*/seed*/metrics.json"):
        told = json.loads(path.read_text())
        told["test"] |= measures
        path.write_text(json.dumps(told))


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


def test_the_note_says_what_averages_are_over(own_run):
    edit(own_run, "classify", averaging={"micro": "over images", "macro": "over classes"})
    edit(own_run, "segment", averaging="per image, then mean", empty_masks="agree")
    assert table(own_run, 0).note.endswith("micro: over images; macro: over classes")
    assert table(own_run, 1).note.endswith("Averages: per image, then mean; agree")
