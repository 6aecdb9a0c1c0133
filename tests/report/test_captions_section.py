"""The captions section: variety, agreement with measurement, contradictions side by side."""

import json
from pathlib import Path

import pandas as pd
import pytest

from didgen.report.page import render
from didgen.report.reading import BrokenResult
from didgen.report.sections import captions, verdict
from didgen.settings.report import Settings

DIVERSITY = {
    "count": 14, "distinct_captions": 9, "vocabulary": 41, "mean_words": 17.5, "distinct_1": 0.0625,
    "distinct_2": 0.125, "distinct_3": 0.25, "self_bleu": 0.875,
}  # fmt: skip
SIZE = {
    "n": 13, "unclaimed": 1, "unmeasured": 0, "agreement": 0.8125, "kappa": 0.4375,
    "weighted_kappa": 0.5625, "confusions": [["large", "small", 3]],
}  # fmt: skip
SHAPE = {"n": 0, "unclaimed": 14, "unmeasured": 0, "agreement": None, "kappa": None}


@pytest.fixture
def audited(own_run: Path, hostile: str) -> Path:
    """The run with captions of a model, which contradicts the measurement in two images."""
    folder = own_run / "caption"
    ids = pd.read_csv(own_run / "data" / "train.csv")["id"].tolist()
    statistics = json.loads((folder / "statistics.json").read_text())
    statistics["tokens"] |= {"truncation_rate": 0.1875, "asked_again": 5}
    (folder / "statistics.json").write_text(json.dumps(statistics | {"diversity": DIVERSITY}))
    wrong = {"size": ["small", "large"], "main_color": [hostile, "tan"]}
    audit = {
        "captioner": "llama_cpp", "count": 14,
        "attributes": {"size": SIZE, "shape": SHAPE | {"confusions": []}},
        "examples": [{"id": ids[0], "wrong": wrong}, {"id": "gone", "wrong": wrong}],
    }  # fmt: skip
    (folder / "audit.json").write_text(json.dumps(audit))
    return own_run


def page_of(run: Path) -> str:
    return render("demo", [part.section(run, Settings()) for part in (verdict, captions)])


def test_agreement_and_contradictions_are_shown(audited, hostile):
    page = page_of(audited)
    for number in ("0.438", "0.562", "0.812", "0.188", "0.875", "17.5"):
        assert number in page
    assert "large as small: 3" in page
    assert "size: claimed small, measured large" in page
    assert "<script" not in page and hostile not in page
    assert "1 images that the audit names are not in this run" in page
    assert page.count('class="pair"') == 1


def test_without_a_model_only_the_variety_is_told(audited):
    (audited / "caption/audit.json").write_text(json.dumps({"captioner": "measure", "count": 0}))
    found = captions.section(audited, Settings())
    assert found.content["audit"] is None and "all attributes were measured" in found.missing[0]
    (audited / "caption/statistics.json").unlink()
    assert captions.section(audited, Settings()).content is None


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("audit.json", {"attributes": [1]}),
        ("audit.json", {"attributes": {"size": SIZE | {"n": "many"}}}),
        ("audit.json", {"examples": [1]}),
        ("statistics.json", {"diversity": 3}),
        ("statistics.json", {"diversity": DIVERSITY | {"self_bleu": None}}),
    ],
)
def test_damaged_files_are_named(audited, file, change):
    path = audited / "caption" / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BrokenResult, match=file):
        captions.section(audited, Settings())
