"""External test sets: prepared beside the run's own data, and tested on by every network."""

from pathlib import Path

import pytest

from tests.data.published_layouts import ph2
from tests.workflow.test_methods import configure, received

RUN = Path("results") / "smoke"


@pytest.fixture
def with_ph2(unfinished: Path) -> Path:
    ph2(unfinished / "ph2")
    configure(unfinished, data=DATA | {"external": [{"source": "ph2", "folder": "ph2"}]})
    return unfinished


DATA = {"source": "phantoms", "phantoms": 56, "size": 128}


def test_every_network_is_tested_and_the_verdict_reads_what_it_said(
    with_ph2: Path, snakemake, jobs
) -> None:
    done = snakemake(with_ph2, "verdict")
    assert done.returncode == 0, done.stdout[-3000:]
    stages = received(with_ph2)
    assert stages["external_data"]["external"][0]["folder"] == "ph2"
    assert stages["external_data"]["train"] == str(RUN / "data" / "train.csv")
    assert stages["data"]["external"] == []
    assert stages["external_test"]["classify_arms"] == stages["verdict"]["classify_arms"]
    assert stages["external_test"]["seeds"] == [0]
    assert stages["verdict"]["external"] == str(RUN / "external_test")
    # A set more is prepared and tested on; nothing is trained again.
    ph2(with_ph2 / "more")
    sets = [{"source": "ph2", "folder": "ph2"}, {"source": "ph2", "name": "b", "folder": "more"}]
    configure(with_ph2, data=DATA | {"external": sets})
    done = snakemake(with_ph2, "verdict")
    assert done.returncode == 0, done.stdout[-3000:]
    assert set(jobs(done.stdout)) == {"external_data", "external_test", "verdict"}
    assert (with_ph2 / RUN / "external_data" / "b" / "test.csv").exists()
    # A file more in a set's folder, too.
    (with_ph2 / "ph2" / "new.txt").write_text("new")
    left = jobs(snakemake(with_ph2, "-n", "verdict").stdout)
    assert set(left) == {"external_data", "external_test", "verdict"}


def test_without_external_sets_there_is_no_job_for_them(unfinished: Path, snakemake, jobs) -> None:
    configure(unfinished)
    left = jobs(snakemake(unfinished, "-n").stdout)
    assert "verdict" in left
    assert not {"external_data", "external_test"} & set(left)


def test_a_path_that_snakemake_would_fill_in_is_refused(unfinished: Path, snakemake) -> None:
    configure(unfinished, data=DATA | {"external": [{"source": "ph2", "folder": "{ph2}"}]})
    done = snakemake(unfinished, "-n")
    assert done.returncode != 0
    assert "data.external.folder: found {ph2}" in done.stdout
