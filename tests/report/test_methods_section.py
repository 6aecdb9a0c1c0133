"""Methods side by side: their effort, their scores and the same pairs of each."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from didgen.report.page import build, render
from didgen.report.reading import BrokenResult
from didgen.report.sections import methods, verdict
from didgen.settings.report import Settings
from tests.report.test_page import Reader

SHARDS = ("1-of-2", "2-of-2")


def save(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


@pytest.fixture
def compared(own_run: Path) -> Path:
    """A run with pairs of another method, which the verdict compared too."""
    place = own_run / "methods" / "warp"
    for shard in SHARDS:
        shutil.copytree(own_run / "pairs" / shard, place / "pairs" / shard)
        table = place / "pairs" / shard / "metadata.csv"
        pd.read_csv(table).assign(method="warp").to_csv(table, index=False)
    save(place / "augment" / "config.json", {"pairs": [f"methods/warp/pairs/{s}" for s in SHARDS]})
    path = own_run / "verdict" / "config.json"
    named = json.loads(path.read_text())
    save(path, named | {"segment_arms": [*named["segment_arms"], "warp"]})
    budget = {"parameters": 4_300_000, "steps": 250, "images": 4000, "departures": ["Shorter."]}
    save(own_run / "finetune" / "budget.json", budget)
    save(place / "filter" / "summary.json", {"means": {"all": {"segmenter_iou": 0.625}}})
    save(own_run / "label_fidelity" / "label_fidelity.json", {"mean": {"synthetic": 0.75}})
    return own_run


def section(run_dir: Path) -> dict:
    made = methods.section(run_dir, Settings())
    assert made.content is not None
    return made.content


def values(table) -> dict:
    return {row.heading: [cell.value for cell in row.cells] for row in table.rows}


def test_effort_and_scores_stand_beside_each_other(compared: Path) -> None:
    for name, seconds in (("finetune", 600), ("pairs/1-of-2", 8), ("methods/warp/pairs/1-of-2", 2)):
        path = compared / "benchmarks" / f"{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"s\tmax_rss\tcpu_time\n{seconds}\t1\t1\n")
    effort, quality = section(compared)["tables"]
    assert values(effort) == {
        "didgen": [4_300_000, 250, 4000, 10, 12, 8 / 12],
        "warp": [None, None, None, None, 4, 0.5],
    }
    assert values(quality)["didgen"][-2:] == [0.75, None]
    assert values(quality)["warp"][-2:] == [None, 0.625]


def test_the_same_pairs_are_shown_of_each_method_and_departures_are_said(compared: Path) -> None:
    content = section(compared)
    (grid,) = content["masks"]
    assert grid["columns"] == [f"PAIR_{number:05d}" for number in range(4)]
    assert [row["method"] for row in grid["rows"]] == ["didgen", "warp"]
    assert content["classes"] == [] and content["departures"] == {"didgen": ["Shorter."]}
    (compared / "label_fidelity" / "label_fidelity.json").unlink()
    text = Reader(build(compared, Settings())).text
    assert "The same pairs" in text and "Shorter." in text


def test_kernel_distances_are_given_with_those_of_real_images(compared: Path) -> None:
    matched = {"synthetic": {"mean": 0.5}, "real": {"mean": 0.125}}
    space = {"network": "lite0", "measures": {"kernel distance": {"matched": matched}}}
    path = compared / "fidelity" / "fidelity.json"
    save(path, {"sets": {"pairs": {"spaces": {"lite0": space}}}})
    quality = section(compared)["tables"][1]
    assert values(quality)["didgen"][:4] == [None, None, 0.5, 0.125]
    assert "real images: kernel distance, lower" in quality.note
    save(path, {"sets": {"pairs": {"spaces": 3}}})
    with pytest.raises(BrokenResult, match="no kernel distance"):
        section(compared)


def test_a_run_with_its_own_method_alone_has_no_such_section(own_run: Path) -> None:
    assert "What each method took" not in Reader(build(own_run, Settings())).text


def test_names_cannot_inject_markup(compared: Path) -> None:
    save(compared / "finetune" / "budget.json", {"departures": ["<script>alert(1)</script>"]})
    parts = [part.section(compared, Settings()) for part in (verdict, methods)]
    assert "<script>" not in render("demo", parts)
