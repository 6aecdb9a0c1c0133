"""The check of a graphics card: its goals by hand, and its parts on a processor."""

import json
import sys

import pytest

from benchmarks import gpu
from benchmarks.gpu import Row


def test_goals_by_hand():
    rows = [
        Row("finetuning", "bfloat16, batch 16", 40.0, "images/s"),
        Row("finetuning", "bfloat16, batch 16", 30.0, "GB at most"),
        Row("finetuning", "bfloat16, batch 4", 20.0, "images/s"),
        Row("pairs", "guide_every 2, reuse_prediction true, batch 1", 1.3, "ratio"),
        Row("pairs", "guide_every 2, reuse_prediction true, batch 16", 1.2, "ratio"),
        Row("sampling", "ddim 50, batch 16", None, "images/s", "out of memory"),
    ]
    values = [(goal["value"], goal["met"]) for goal in gpu.goals(rows)]
    # 20,000 steps of 4 images at 20 images/s: 4,000 s.
    assert values == [
        (40.0, True),
        (pytest.approx(66.7, abs=0.04), False),
        (None, None),
        (1.3, False),
    ]
    assert gpu.goals(rows)[0]["goal"] == "at least 36"


def test_without_a_card_it_says_how_to_try(monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu"])
    with pytest.raises(SystemExit):
        gpu.main()
    assert "found no GPU; --smoke runs the parts" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_part_runs_at_the_smallest_size(monkeypatch, tmp_path):
    out = tmp_path / "gpu.json"
    monkeypatch.setattr(sys, "argv", ["gpu", "--smoke", "--out", str(out)])
    gpu.main()
    result = json.loads(out.read_text())
    assert result["architecture"] == "tiny" and result["goals"] == []
    assert {row["part"] for row in result["rows"]} == set(gpu.PARTS)
    for row in result["rows"]:
        assert set(row) == {"part", "name", "value", "unit", "note"}
        assert (row["value"] is None) == bool(row["note"])
    correct = [row["value"] for row in result["rows"] if row["part"] == "correctness"]
    assert len(correct) == 5 and max(correct) < 1e-3
