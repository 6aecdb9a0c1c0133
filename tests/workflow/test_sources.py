"""What `prepare` reads is its input: editing it reruns the stage, planning does not need it."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


def inputs(tmp_path: Path, snakemake, **data) -> list[str]:
    """The input files that a dry run names for `prepare`."""
    config = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    config["data"] = {"size": 128, **data}
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    done = snakemake(tmp_path, "-n", "prepare", "--configfile", str(path))
    assert done.returncode == 0, done.stdout
    line = re.search(r"^    input: (.*)$", done.stdout, re.MULTILINE)
    return line.group(1).split(", ") if line else []


def test_a_table_is_an_input(tmp_path: Path, snakemake) -> None:
    (tmp_path / "own.csv").write_text("id,image\n")
    assert inputs(tmp_path, snakemake, source="table", table="./own.csv") == ["own.csv"]


@pytest.mark.slow
def test_the_archives_that_are_there_and_needed_are_inputs(tmp_path: Path, snakemake) -> None:
    data = {"source": "isic2018", "mirror": "mirror"}
    assert inputs(tmp_path, snakemake, **data) == []
    (tmp_path / "mirror").mkdir()
    training = "mirror/ISIC2018_Task3_Training_Input.zip"
    test = "mirror/ISIC2018_Task1_Test_GroundTruth.zip"
    for name in (training, test, "mirror/other.zip"):
        (tmp_path / name).touch()
    assert inputs(tmp_path, snakemake, **data) == [training]
    assert sorted(inputs(tmp_path, snakemake, **data, splits="official")) == [test, training]
    assert inputs(tmp_path, snakemake, source="phantoms") == []
