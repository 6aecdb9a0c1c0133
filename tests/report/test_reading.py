"""Which results belong to the run: its shards, its arms and seeds, and none of an earlier run."""

import json
import shutil
from pathlib import Path

import pytest

from didgen.report.reading import BrokenResult, json_file, shards, synthetic_set, trials
from didgen.report.sections import pairs, provenance, samples
from didgen.settings.report import Settings


def test_a_set_is_all_its_shards_and_no_shard_of_an_earlier_run(own_run: Path) -> None:
    for name in ("images", "pairs"):
        shutil.copytree(own_run / name / "1-of-2", own_run / name / "1-of-1")
        (own_run / name / "1-of-1" / "failed.csv").write_text("id\nSYN_9\n")
    assert shards(own_run, "pairs") == [own_run / "pairs" / "1-of-2", own_run / "pairs" / "2-of-2"]
    frame, missing = synthetic_set(own_run, "pairs", ("condition", "layout_iou"))
    assert sorted(frame["id"]) == [f"PAIR_{number:05d}" for number in range(4)] and missing == []
    for column in ("image", "mask", "condition"):
        assert all(Path(file).is_file() for file in frame[column])
    assert samples.section(own_run, Settings()).content["total"] == 8
    assert pairs.section(own_run, Settings()).content["total"] == 4
    facts = dict(provenance.section(own_run, Settings()).content["facts"])
    assert facts["Synthetic class-conditional images"].startswith("8 rows, 4 seeds")


@pytest.mark.parametrize(
    ("task", "idle"), [("segmentation", "images"), ("classification", "pairs")]
)
def test_a_stage_of_another_task_than_the_runs_is_not_missed(
    own_run: Path, task: str, idle: str
) -> None:
    path = own_run / "augment" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {idle: []}))
    said = f"The stage {idle} left no config.json in this run."
    assert said in provenance.section(own_run, Settings()).missing
    (own_run / "data" / "config.json").write_text(json.dumps({"tasks": [task]}))
    assert said not in provenance.section(own_run, Settings()).missing


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "", "3", "[]", '{"a": NaN}'])
def test_a_verdict_that_is_no_object_is_named(own_run: Path, content: str) -> None:
    (own_run / "verdict.json").write_text(content)
    with pytest.raises(BrokenResult, match="verdict.json: .*expected a JSON object"):
        json_file(own_run / "verdict.json")


def test_failures_of_all_shards_are_added(own_run: Path) -> None:
    for shard in ("1-of-2", "2-of-2"):
        (own_run / "images" / shard / "failed.csv").write_text(f"id\nSYN_{shard}\n")
    _, missing = synthetic_set(own_run, "images")
    assert missing == ["2 of 10 samples failed and are left out (failed.csv)."]


def test_a_shard_that_is_gone_is_said(own_run: Path) -> None:
    shutil.rmtree(own_run / "images" / "2-of-2")
    frame, missing = synthetic_set(own_run, "images")
    assert len(frame) == 4
    assert missing == ["There is no images/2-of-2/metadata.csv in this run."]


def test_a_shard_without_a_column_is_an_error(own_run: Path) -> None:
    with pytest.raises(BrokenResult, match="1-of-2/metadata.csv.*expected also layout_iou"):
        synthetic_set(own_run, "images", ("layout_iou",))


def test_arms_and_seeds_of_an_earlier_run_do_not_count(own_run: Path) -> None:
    task = own_run / "classify"
    ours = [(arm, seed) for arm in ("original", "synthetic") for seed in range(3)]
    shutil.copytree(task / "original", task / "copies")
    shutil.copytree(task / "original" / "seed0", task / "original" / "seed7")
    assert [(trial.arm, trial.seed) for trial in trials(own_run, "classify")] == ours
    (own_run / "verdict" / "config.json").write_text('{"classify_arms": null, "seeds": null}')
    found = [(trial.arm, trial.seed) for trial in trials(own_run, "classify")]
    assert found == sorted([*ours, ("original", 7), *[("copies", seed) for seed in range(3)]],
                           key=lambda each: (each[0] != "original", *each))  # fmt: skip
    (own_run / "verdict" / "config.json").unlink()
    assert [(trial.arm, trial.seed) for trial in trials(own_run, "classify")] == found


@pytest.mark.parametrize(
    ("name", "content"),
    [("augment", '{"images": "1-of-1"}'), ("verdict", '{"classify_arms": "original"}')],
)
def test_a_broken_choice_is_an_error(own_run: Path, name: str, content: str) -> None:
    (own_run / name / "config.json").write_text(content)
    with pytest.raises(BrokenResult, match="expected a list"):
        shards(own_run, "images")
        trials(own_run, "classify")
