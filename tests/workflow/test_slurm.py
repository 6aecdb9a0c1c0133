"""The smallest run on a real SLURM, with a job cancelled in its training and a node drained."""

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROFILE = ROOT / "workflow" / "profiles" / "slurm"
# Looking at jobs more often than a real site would like.
OFTEN = ("--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks", "1")


def _module(name: str):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


slurm_site = _module("slurm_site")
pytestmark = [pytest.mark.slow, pytest.mark.slurm, pytest.mark.timeout(7200)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    reason = slurm_site.why_not()
    if reason:
        pytest.skip(reason)
    with slurm_site.Site(tmp_path_factory.mktemp("site")) as site:
        yield site


def configuration(directory: Path) -> str:
    """The smallest configuration, with a training long enough to be cancelled in, and the rest
    shorter still: what SLURM does is looked at, not what networks learn."""
    config = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    config["finetune"] |= {"steps": 24, "checkpoint_every": 2}
    config["finetune"]["validation_images"] = 0
    short = {"steps": 4, "eval_every": 2}
    config |= {name: config.get(name, {}) | short for name in ("classify", "segment")}
    path = directory / "cancelled.yaml"
    path.write_text(yaml.safe_dump(config))
    return str(path)


def test_a_cancelled_job_and_a_drained_node_do_not_stop_the_run(site, tmp_path: Path) -> None:
    run_dir = tmp_path / "results" / "smoke"
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow/Snakefile")]
    command += ["--workflow-profile", str(PROFILE), *OFTEN, "--latency-wait", "10"]
    command += ["--configfile", configuration(tmp_path)]
    output = tmp_path / "output.txt"

    with slurm_site.launched(command, tmp_path, output) as run:

        def wait(condition, seconds: float, what: str) -> None:
            site.wait(lambda: run.poll() is not None or condition(), seconds, what)
            assert run.poll() is None, f"ended before {what}:\n{output.read_text()[-4000:]}"

        # Its state is on disk: it is in the middle of its training.
        states = run_dir / ".state" / "finetune"
        wait(lambda: any(states.rglob("curve.json")), 3000, "the training has saved a state")
        (cancelled,) = site.jobs("finetune")
        site.ask("scancel", cancelled)
        wait(lambda: len(site.jobs("finetune")) == 2, 600, "the training is submitted again")

        # A draining node ends what it has and begins nothing.
        wait(lambda: "RUNNING" in site.jobs("finetune").values(), 1200, "it trains again")
        site.node("drain")
        wait(lambda: site.node_state() == "drained", 3000, "the node is drained")
        wait(lambda: "PENDING" in site.jobs().values(), 900, "jobs wait for the node")
        assert "RUNNING" not in site.jobs().values()
        assert not (run_dir / "verdict.json").exists()
        site.node("resume")

        assert run.wait(5400) == 0, output.read_text()[-6000:]

    assert sorted(site.jobs("finetune").values()) == ["CANCELLED", "COMPLETED"]
    assert set(site.jobs().values()) == {"CANCELLED", "COMPLETED"}
    assert "continuing after step" in (run_dir / "logs" / "finetune.log").read_text()
    verdict = json.loads((run_dir / "verdict.json").read_text())
    assert set(verdict["tasks"]) == {"classification", "segmentation"}
    assert (run_dir / "report" / "index.html").stat().st_size > 0
    wanted = "--Format=Comment:60,Partition:20,tres-per-job:20"
    lines = site.ask("squeue", "--states=all", "--noheader", wanted).splitlines()
    requests = {tuple(line.split()) for line in lines}
    for rule in ("finetune", "maps", "filter"):
        assert (f"rule_{rule}", "gpu", "gres:gpu:1") in requests
    assert ("rule_verdict", "cpu", "N/A") in requests
