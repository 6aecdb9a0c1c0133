"""The smallest configuration, every stage for real."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_smallest_run_goes_all_the_way(tmp_path: Path, snakemake) -> None:
    flags = ("--configfile", str(ROOT / "config" / "smoke.yaml"))
    done = snakemake(tmp_path, *flags, timeout=1800)
    assert done.returncode == 0, done.stdout[-6000:]
    run_dir = tmp_path / "results" / "smoke"
    for name in ("report/index.html", "augmented/metadata.csv", "backbone/model_index.json"):
        assert (run_dir / name).stat().st_size > 0
    verdict = json.loads((run_dir / "verdict.json").read_text())
    assert set(verdict["tasks"]) == {"classification", "segmentation"}
    for task in verdict["tasks"].values():
        assert task["sentence"]
        assert task["sentence"] in done.stdout
    page = (run_dir / "report" / "index.html").read_text()
    assert "<dt>SYN_" in page and "<dt>PAIR_" in page
    for stage in ("data", "captions", "backbone", "maps", "verdict", "report"):
        assert (run_dir / stage / "config.json").exists()
    again = snakemake(tmp_path, *flags)
    assert "Nothing to be done" in again.stdout
