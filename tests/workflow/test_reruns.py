"""What runs again after an edit, and what a run leaves behind: real rules, stub stages."""

import json
from pathlib import Path

import pytest
import yaml

from didgen.settings.run import RunConfig

DOWNSTREAM = {"verdict", "report", "all"}


def edit(finished: Path, section: str, key: str) -> str:
    """Write a copy of the configuration with one number raised by one; its name."""
    config = yaml.safe_load((finished / "config" / "config.yaml").read_text())
    value = getattr(getattr(RunConfig.model_validate(config), section), key)
    config[section] = config.get(section, {}) | {key: value + 1}
    (finished / "changed.yaml").write_text(yaml.safe_dump(config))
    return "changed.yaml"


def test_every_rule_gives_its_stage_the_flags_it_needs(finished: Path) -> None:
    run_dir = finished / "results" / "smoke"
    assert (run_dir / "report" / "index.html").exists()
    for rule in ("data", "finetune", "images/1-of-2", "classify/synthetic-seed0", "verdict"):
        assert "stub of" in (run_dir / "logs" / f"{rule}.log").read_text()
        assert (run_dir / "benchmarks" / f"{rule}.tsv").exists()


def test_only_the_synthetic_arm_sees_synthetic_data(finished: Path) -> None:
    lines = (finished / "received.jsonl").read_text().splitlines()
    configs = [json.loads(line)["config"] for line in lines]
    jobs = [config for config in configs if "arm" in config]
    added = {(job["arm"], job["synthetic"]) for job in jobs}
    augmented = "results/smoke/augment/metadata.csv"
    assert added == {("original", None), ("duplicates", augmented), ("synthetic", augmented)}
    assert len(jobs) == 6


def test_a_second_run_has_nothing_to_do(finished: Path, snakemake) -> None:
    done = snakemake(finished)
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout


@pytest.mark.parametrize(
    ("section", "key", "rerun"),
    [
        (
            "pairs",
            "steps",
            {"pairs_job", "filter", "augment", "classify_job", "segment_job"}
            | {"fidelity", "label_fidelity"}
            | DOWNSTREAM,
        ),
        ("label_fidelity", "folds", {"label_judges", "label_fidelity", "report", "all"}),
        pytest.param("maps", "images", {"maps", "report", "all"}, marks=pytest.mark.slow),
    ],
)
def test_editing_a_section_reruns_its_stage_and_what_follows(
    finished: Path, snakemake, jobs, section: str, key: str, rerun: set[str]
) -> None:
    done = snakemake(finished, "-n", "--configfile", edit(finished, section, key))
    assert done.returncode == 0, done.stdout
    assert set(jobs(done.stdout)) == rerun


@pytest.mark.slow
def test_writing_a_default_out_reruns_nothing(finished: Path, snakemake) -> None:
    config = yaml.safe_load((finished / "config" / "config.yaml").read_text())
    full = RunConfig.model_validate(config).model_dump(mode="json")
    (finished / "full.yaml").write_text(yaml.safe_dump(full))
    done = snakemake(finished, "-n", "--configfile", "full.yaml")
    assert "Nothing to be done" in done.stdout


def test_a_failing_stage_speaks_on_the_terminal_and_in_its_log(finished: Path, snakemake) -> None:
    main = finished / "didgen" / "__main__.py"
    working = main.read_text()
    main.write_text("import sys\nsys.exit('the disk is full')\n")
    try:
        done = snakemake(finished, "--config", "run=broken", "--until", "data")
    finally:
        main.write_text(working)
    assert done.returncode != 0
    assert "the disk is full" in done.stdout
    assert "the disk is full" in (finished / "results/broken/logs/data.log").read_text()


def test_a_file_that_no_stage_wrote_is_not_deleted(finished: Path, snakemake) -> None:
    for name in ("data/train.csv", "verdict.json"):
        mine = finished / "results" / "mine" / name
        mine.parent.mkdir(parents=True, exist_ok=True)
        mine.write_text("mine")
    done = snakemake(finished, "--config", "run=mine")
    assert done.returncode != 0
    assert "2 files lie where this run writes" in done.stdout
    for name in ("data/train.csv", "verdict.json"):
        assert (finished / "results" / "mine" / name).read_text() == "mine"
