"""The last words of a run: its verdict and where the report is."""

import importlib.util
import json
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("outcome", ROOT / "workflow" / "outcome.py")
outcome = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(outcome)


def test_a_run_without_verdict_says_nothing(tmp_path: Path) -> None:
    assert outcome.outcome(tmp_path) == []


def test_sentences_then_report(tmp_path: Path) -> None:
    tasks = {"classification": {"sentence": "A."}, "segmentation": {"sentence": "B."}}
    (tmp_path / "verdict.json").write_text(json.dumps({"tasks": tasks}))
    assert outcome.outcome(tmp_path) == ["classification: A.", "segmentation: B."]
    (tmp_path / "report").mkdir()
    page = tmp_path / "report" / "index.html"
    page.touch()
    assert outcome.outcome(tmp_path)[-1] == f"Report: {page.resolve()}"


@pytest.mark.parametrize("name", ["finetune/model_index.json", "methods/warp/augment/metadata.csv"])
def test_a_verdict_older_than_its_data_is_not_repeated(tmp_path: Path, name: str) -> None:
    verdict = tmp_path / "verdict.json"
    verdict.write_text(json.dumps({"tasks": {"segmentation": {"sentence": "B."}}}))
    index = tmp_path / name
    index.parent.mkdir(parents=True)
    index.touch()
    written = verdict.stat().st_mtime
    os.utime(index, (written - 60, written - 60))
    assert outcome.outcome(tmp_path) == ["segmentation: B."]
    os.utime(index, (written + 60, written + 60))
    assert outcome.outcome(tmp_path) == []
