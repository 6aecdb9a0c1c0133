"""The workflow: every configuration builds every stage, wrong ones stop and name the key."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from didgen.settings.arms import of_task
from didgen.settings.run import RunConfig

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config"
STAGES = {
    "data",
    "caption",
    "finetune",
    "images_job",
    "pairs_job",
    "filter",
    "augment",
    "maps",
    "classify_job",
    "segment_job",
    "fidelity",
    "label_judges",
    "label_fidelity",
    "verdict",
    "report",
    "all",
}


def test_the_demo_is_what_runs_without_a_config_file(tmp_path: Path, snakemake, jobs) -> None:
    (tmp_path / "config").symlink_to(CONFIG)
    done = snakemake(tmp_path, "-n")
    assert done.returncode == 0, done.stdout
    assert "results/demo/report/index.html" in done.stdout
    assert set(jobs(done.stdout)) == STAGES


@pytest.mark.parametrize(
    "name",
    [
        "isic2018.yaml",
        pytest.param("isic2018-mini.yaml", marks=pytest.mark.slow),
        pytest.param("smoke.yaml", marks=pytest.mark.slow),
    ],
)
def test_every_configuration_builds_every_stage(tmp_path: Path, snakemake, jobs, name: str) -> None:
    flags = ("--config", "mirror=archives") if "isic" in name else ()
    done = snakemake(tmp_path, "-n", "--configfile", str(CONFIG / name), *flags)
    assert done.returncode == 0, done.stdout
    counts = jobs(done.stdout)
    config = yaml.safe_load((CONFIG / name).read_text())
    assert set(counts) == STAGES | ({"fetch"} if "isic" in name else set())
    assert counts["images_job"] == counts["pairs_job"] == config.get("shards", 1)
    whole = RunConfig.model_validate(config)
    arms = whole.arms
    assert counts["classify_job"] == len(arms) * len(whole.seeds)
    masked = of_task(arms, "segmentation")
    assert counts["segment_job"] == len(masked) * len(whole.seeds)


@pytest.mark.parametrize(
    ("section", "values", "said"),
    [
        ("finetune", {"lerning_rate": 1e-4}, ["finetune.lerning_rate", "unknown key"]),
        ("data", {"source": "table", "table": None}, ["data", "needs `table`"]),
        pytest.param(
            "data", {"size": "large"}, ["data.size", "'large'", "integer"], marks=pytest.mark.slow
        ),
        pytest.param(None, {"sections": {}}, ["sections"], marks=pytest.mark.slow),
        (None, {"run": ".."}, ["run: found '..'", "pattern"]),
        pytest.param(None, {"run": "x" * 300}, ["run", "60 characters"], marks=pytest.mark.slow),
        pytest.param(None, {"seeds": [-1]}, ["seeds.0", "0"], marks=pytest.mark.slow),
        pytest.param(
            "classify", {"learning_rate": float("inf")}, ["finite"], marks=pytest.mark.slow
        ),
        pytest.param("data", {"archives": "a\0b"}, ["NUL character"], marks=pytest.mark.slow),
    ],
)
def test_a_wrong_configuration_stops_and_names_the_key(
    tmp_path: Path, snakemake, section: str | None, values: dict, said: list[str]
) -> None:
    config = yaml.safe_load((CONFIG / "smoke.yaml").read_text())
    (config.setdefault(section, {}) if section else config).update(values)
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(config))
    done = snakemake(tmp_path, "-n", "--configfile", str(path))
    assert done.returncode != 0
    assert "Traceback" not in done.stdout
    for words in said:
        assert words in done.stdout
    assert {path.name for path in tmp_path.iterdir()} <= {"wrong.yaml", ".snakemake"}


def test_a_section_that_stands_twice_stops_before_one_is_lost(tmp_path: Path, snakemake) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("run: a\nfinetune:\n  steps: 3\nseed: 1\nfinetune:\n  batch_size: 4\n")
    done = snakemake(tmp_path, "-n", "--configfile", str(path))
    assert done.returncode != 0 and "Traceback" not in done.stdout
    assert "twice.yaml:5: `finetune` stands there and in line 2" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("run: ä\n".encode("utf-16"), "not UTF-8"),
        (None, "not present or accessible"),
        (b"- a\n", "a list"),
    ],
)
def test_a_configuration_in_its_place_that_cannot_be_read(
    unfinished: Path, snakemake, content: bytes | None, said: str
) -> None:
    path = unfinished / "config" / "config.yaml"
    path.unlink() if content is None else path.write_bytes(content)
    done = snakemake(unfinished, "-n")
    assert done.returncode != 0 and "Traceback" not in done.stdout
    assert "config/config.yaml" in done.stdout and said in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("target", ["data", "images", "pairs", "classify", "segment", "maps"])
def test_a_stage_can_be_asked_for_alone(tmp_path: Path, snakemake, jobs, target: str) -> None:
    # --configfile takes every name that follows it, so a target stands before.
    done = snakemake(tmp_path, target, "-n", "--configfile", str(CONFIG / "smoke.yaml"))
    assert done.returncode == 0, done.stdout
    assert target in jobs(done.stdout)
    assert not {"all", "report"} & set(jobs(done.stdout))


def test_workflow_files_are_formatted(module) -> None:
    done = module(["snakefmt", "--check", "workflow", "rules"], ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_snakemake_finds_nothing_to_improve(module) -> None:
    done = module(["snakemake", "--lint"], ROOT)
    assert done.returncode == 0, done.stdout


def settings(printed: str, stage: str) -> list[dict]:
    """The settings of each job of a stage whose command was printed."""
    commands = re.findall(rf"(python -m didgen {stage} .*)$", printed, re.MULTILINE)
    return [json.loads(shlex.split(command)[5]) for command in commands]


def test_further_sets_are_arms_and_need_no_synthesis(tmp_path: Path, snakemake, jobs) -> None:
    """One with masks and one without; the copies match the set that the verdict is about."""
    sets = {"prefix": {"metadata": "a.csv"}, "gan": {"metadata": "b.csv"}}
    sets["gan"]["tasks"] = ["classification"]
    for own in sets.values():
        (tmp_path / own["metadata"]).touch()
    arms = ["original", "duplicates", "prefix", "gan"]
    config = {"seeds": [0], "arms": arms, "sets": sets, "verdict": {"treatment": "prefix"}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    done = snakemake(tmp_path, "-n", "-p", "verdict", "--configfile", "c.yaml")
    assert done.returncode == 0, done.stdout
    counts = {"data": 1, "classify_job": 4, "segment_job": 3, "verdict": 1}
    assert jobs(done.stdout) == counts
    (verdict,) = settings(done.stdout, "verdict")
    assert verdict["classify_arms"] == arms and verdict["segment_arms"] == arms[:3]
    assert verdict["seeds"] == [0]
    added = [section["synthetic"] for section in settings(done.stdout, "classify")]
    assert sorted(added, key=str) == [None, "a.csv", "a.csv", "b.csv"]
