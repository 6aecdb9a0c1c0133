"""What `data` reads is its input: editing it reruns the stage, planning does not need it."""

import os
from pathlib import Path

import pytest
import yaml


def configure(copy: Path, **data) -> None:
    path = copy / "config" / "config.yaml"
    config = yaml.safe_load(path.read_text()) | {"data": {"size": 128, **data}}
    path.write_text(yaml.safe_dump(config))


def planned(copy: Path, snakemake) -> str:
    """What a dry run says about `data`."""
    done = snakemake(copy, "-n", "data")
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_an_edited_table_is_prepared_again(unfinished: Path, snakemake) -> None:
    table = unfinished / "own.csv"
    table.write_text("id,image\n")
    configure(unfinished, source="table", table="./own.csv")
    assert snakemake(unfinished, "data").returncode == 0
    assert "Nothing to be done" in planned(unfinished, snakemake)
    table.write_text("id,image\na,a.png\n")
    later = (unfinished / "results/smoke/data/train.csv").stat().st_mtime + 10
    os.utime(table, (later, later))
    assert "Updated input files: own.csv" in planned(unfinished, snakemake)
    table.unlink()
    done = snakemake(unfinished, "-n", "data", "--forcerun", "data")
    assert done.returncode != 0 and "own.csv" in done.stdout


def later(copy: Path, path: Path) -> None:
    """Let a file look edited after the last run."""
    moment = (copy / "results/smoke/data/train.csv").stat().st_mtime + 10
    os.utime(path, (moment, moment))


@pytest.mark.parametrize("source", ["table", "folder"])
def test_an_edited_photograph_is_prepared_again(unfinished: Path, snakemake, source: str) -> None:
    photograph = unfinished / "own" / "NV" / "a.png"
    photograph.parent.mkdir(parents=True)
    photograph.write_bytes(b"first")
    (unfinished / "own" / "own.csv").write_text("id,image\na,NV/a.png\n")
    configure(unfinished, source=source, **{source: "own/own.csv" if source == "table" else "own"})
    assert snakemake(unfinished, "data").returncode == 0
    later(unfinished, unfinished / "own")
    assert "Nothing to be done" in planned(unfinished, snakemake)
    later(unfinished, photograph)
    assert "Params have changed since last execution" in planned(unfinished, snakemake)
    (unfinished / "own").rename(unfinished / "away")
    done = snakemake(unfinished, "data")
    assert done.returncode != 0 and "Missing input files for rule data" in done.stdout
    assert (unfinished / "results/smoke/data/train.csv").exists()


def test_what_only_fetching_needs_is_no_business_of_prepare(unfinished: Path, snakemake) -> None:
    configure(unfinished, source="isic2018", archives="kept")
    assert snakemake(unfinished, "data", "--cores", "3").returncode == 0
    logs = unfinished / "results/smoke/logs"
    told = (logs / "data.log").read_text()
    assert "--listing results/smoke/fetch/archives.json --workers 3" in told
    assert "offline" not in told and "mirror" not in told and '"archives"' not in told
    configure(unfinished, source="isic2018", archives="kept", offline=True)
    assert "Nothing to be done" in planned(unfinished, snakemake)
    assert snakemake(unfinished, "fetch", "--forcerun", "fetch").returncode == 0
    assert "--offline 1" in (logs / "fetch.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("splits", "unneeded", "needed"),
    [
        ("grouped", "ISIC2018_Task3_Test_Input.zip", "ISIC2018_Task3_Training_Input.zip"),
        ("official", "other.zip", "ISIC2018_Task1_Test_GroundTruth.zip"),
    ],
)
def test_fetched_archives_are_prepared_again_if_they_are_needed(
    unfinished: Path, snakemake, splits: str, unneeded: str, needed: str
) -> None:
    configure(unfinished, source="isic2018", mirror="mirror", splits=splits)
    assert snakemake(unfinished, "data").returncode == 0
    (unfinished / "mirror").mkdir()
    (unfinished / "mirror" / unneeded).touch()
    assert "Nothing to be done" in planned(unfinished, snakemake)
    (unfinished / "mirror" / needed).touch()
    assert "Nothing to be done" not in planned(unfinished, snakemake)
