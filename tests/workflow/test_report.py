"""Snakemake's own report: our tables are in it, with words and labels, and no network is asked."""

import json
import re
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CAPTIONS = ROOT / "workflow" / "report"
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def offline(monkeypatch) -> None:
    """Every request of a child ends at a port where nobody listens."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, NOWHERE)
        monkeypatch.setenv(name.upper(), NOWHERE)
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")


def variable(page: str, name: str) -> dict:
    """A table that the report's page carries in its script."""
    start = f"var {name} = "
    return json.JSONDecoder().raw_decode(page[page.index(f"{start}{{") + len(start) :])[0]


@pytest.mark.slow
def test_the_report_is_made_without_a_network(finished: Path, snakemake, offline) -> None:
    done = snakemake(finished, "--report", "report.zip")
    assert done.returncode == 0, done.stdout[-3000:]
    with zipfile.ZipFile(finished / "report.zip") as archive:
        names = set(archive.namelist())
        page = archive.read("report/report.html").decode()
    found = variable(page, "results")
    assert {f"report/{entry['data_uri']}" for entry in found.values()} <= names
    named = {entry["name"] for entry in found.values()}
    assert {"index.html", "verdict.json", "arms.csv", "training.csv", "metrics.json"} <= named
    categories = set(variable(page, "categories"))
    assert {"Report", "Verdict", "Fine-tuning", "Classification", "Data"} <= categories
    metrics = found["results/smoke/classify/original/seed0/metrics.json"]
    assert metrics["labels"] == {"arm": "original", "seed": "0"}
    assert "The classifier of arm <em>original</em>, seed 0" in metrics["caption"]
    # The page needs no network either.
    assert not re.search(r"<(?:script|link)[^>]+(?:src|href)=.https?:", page)


def test_every_caption_is_used_and_every_one_used_exists() -> None:
    text = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    used = set(re.findall(r'caption="\.\./workflow/report/([\w-]+\.rst)"', text))
    assert used == {path.name for path in CAPTIONS.glob("*.rst")} - {"workflow.rst"}
    # A file in the report without a category and labels would be found by its path alone.
    blocks = re.findall(r"=report\((.*?)\n        \),", text, flags=re.DOTALL)
    assert blocks and all("category=" in block and "labels=" in block for block in blocks)
