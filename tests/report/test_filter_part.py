"""The pairs section with a filter, and the attention section with the truth of its masks."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from didgen.report.page import render
from didgen.report.reading import BrokenResult
from didgen.report.sections import attention, pairs, verdict
from didgen.settings.report import Settings

SCORES = ("layout_iou", "segmenter_iou", "contrast", "area", "border_contact", "pale_outside")


@pytest.fixture
def filtered(own_run: Path, hostile: str) -> Path:
    """The run with two of its four pairs rejected, one for a hostile reason."""
    folder = own_run / "filter"
    folder.mkdir()
    reasons = ["pale glow", f"pale glow; {hostile}"]
    table = pd.DataFrame({"id": ["PAIR_00001", "PAIR_00002"], "reasons": reasons})
    table.to_csv(folder / "rejected.csv", index=False)
    means = dict.fromkeys(SCORES, 0.625) | {"contrast": None}
    bound = {"score": "pale_outside", "low": None, "high": 0.05}
    summary = {
        "n": 4, "kept": 2, "rejected": 2, "by_reason": {"pale glow": 2},
        "by_reason_alone": {"pale glow": 1}, "thresholds": {"pale glow": bound},
        "means": {"all": means, "kept": means},
        "segmenter": {"val_dice": 0.8725, "n_train": 287, "arm": "original"},
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary))
    points = [{"rejected": x, "kept": 2, "quality": 0.5 + x} for x in (0.0, 0.25)]
    curve = {"score": "layout_iou", "quality": "segmenter_iou", "n": 4, "points": points}
    (folder / "curve.json").write_text(json.dumps({"curves": [curve]}))
    return own_run


@pytest.fixture
def judged(own_run: Path) -> Path:
    """The run with the truth of annotated masks."""
    path = own_run / "maps" / "maps.json"
    maps = json.loads(path.read_text())
    measure = {"mean": 0.5625, "sd": 0.1, "median": 0.6, "quartiles": [0.5, 0.7]}
    truth = dict.fromkeys(("iou", "dice", "boundary_iou", "hd95"), measure)
    truth |= {"compared_at": "32x32 px", "boundary_band_px": 1, "n": 4, "n_failed": 1}
    truth["rejection_by_contrast"] = [{"rejected": 0.0, "kept": 4, "quality": 0.5625}]
    row = {"kind": "worst", "id": "X", "panel": maps["images"][0]["panel"]}
    row |= {f"annotated_{name}": 0.125 for name in ("iou", "dice", "boundary_iou", "hd95")}
    path.write_text(json.dumps(maps | {"truth": truth, "truth_panels": [row]}))
    return own_run


def page_of(run: Path, module, **settings) -> str:
    sections = [part.section(run, Settings(**settings)) for part in (verdict, module)]
    return render("demo", sections)


def words(page: str) -> str:
    return " ".join(re.sub("<[^>]*>", "", page).split())


def test_counts_reasons_and_rejected_pairs_are_shown(filtered: Path, hostile: str) -> None:
    page = page_of(filtered, pairs)
    text = words(page)
    assert "Of 4 pairs, 2 were kept and 2 rejected" in text
    assert "287 real images" in text and 'value="0.8725"' in page
    assert "pale skin outside \N{LESS-THAN OR EQUAL TO} 0.05" in text
    assert page.count("<img") == 4 + 2 and page.count('class="pair"') == 6
    assert "<script" not in page and "onerror=alert(2)>" not in page
    assert "Quality of the pairs that remain" in text


def test_a_run_without_a_filter_says_so(own_run: Path) -> None:
    section = pairs.section(own_run, Settings())
    assert section.content["filter"] is None
    assert any("not filtered" in sentence for sentence in section.missing)


def test_a_damaged_summary_is_an_error(filtered: Path) -> None:
    (filtered / "filter" / "summary.json").write_text('{"n": "many"}')
    with pytest.raises(BrokenResult, match="summary.json"):
        pairs.section(filtered, Settings())


def test_truth_is_shown_with_its_failures(judged: Path) -> None:
    page = page_of(judged, attention, panels=1)
    text = words(page)
    assert "boundary IoU" in text and "32x32 px" in text
    assert "as empty ones: 1 of 4" in text and 'value="0.5625"' in page
    assert page.count("<img") == 2 and "worst" in text


def test_damaged_truth_is_an_error(judged: Path) -> None:
    path = judged / "maps" / "maps.json"
    maps = json.loads(path.read_text())
    maps["truth"]["dice"] = None
    path.write_text(json.dumps(maps))
    with pytest.raises(BrokenResult, match="truth.dice"):
        attention.section(judged, Settings())
