"""The smallest run, killed again and again and resumed, ends with the bytes of an undisturbed one.

`DIDGEN_CHAOS_KILLS=20` kills it twenty times, not twice; `DIDGEN_CHAOS_SEED` sets the moments.
"""

import contextlib
import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("DIDGEN_CHAOS_KILLS", "2"))
SEED = int(os.environ.get("DIDGEN_CHAOS_SEED", "0"))

# Less of the same: every stage, every kind of saved state, in a fraction of the time.
SMALLER: dict[str, dict[str, Any]] = {
    "finetune": {"validation_images": 2, "validation_samples": 1, "validate_every": 2},
    "classify": {"steps": 8, "eval_every": 4},
    "segment": {"steps": 8, "eval_every": 4},
}
# What differs between any two runs: what a clock says (the page tells what each stage cost), and
# snakemake's own words and times.
APART = re.compile(r"(logs|benchmarks|\.state)/|report/index\.html$|(.*/)?\.lock$")
TIMES = {"seconds", "created", "started", "finished"}


Changes = Mapping[str, Mapping[str, Any]]


def settings(folder: Path, changes: Changes) -> Path:
    """Write the smallest configuration with changes."""
    config = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    for section, values in changes.items():
        config[section] = config.get(section, {}) | values
    path = folder / "chaos.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@dataclass
class Launch:
    """One start of the workflow, in a process group of its own."""

    process: subprocess.Popen
    output: IO[str]

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the whole group, and wait for its end."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)
        self.process.wait(600)

    def said(self) -> str:
        """What it has said so far."""
        self.output.seek(0)
        return self.output.read()


@contextlib.contextmanager
def launched(folder: Path, *flags: str, changes: Changes = SMALLER) -> Iterator[Launch]:
    """Start the workflow as users do; whatever is left of it at the end is killed."""
    folder.mkdir(exist_ok=True)
    snakefile = str(ROOT / "workflow" / "Snakefile")
    command = [sys.executable, "-m", "snakemake", "--snakefile", snakefile, "--cores", "2"]
    command += ["--configfile", str(settings(folder, changes)), *flags]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with (folder / "output.txt").open("w+") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        launch = Launch(process, output)
        try:
            yield launch
        finally:
            launch.kill()


def finish(folder: Path) -> float:
    """Run to the end; the seconds it took."""
    started = time.monotonic()
    with launched(folder) as launch:
        code = launch.process.wait(3600)
        assert code == 0, launch.said()[-6000:]
    return time.monotonic() - started


def jobs_done(folder: Path) -> int:
    """How many jobs have ended; each leaves a table of what it took."""
    return sum(1 for _ in (folder / "results/smoke/benchmarks").rglob("*.tsv"))


def wait_for(condition: Callable[[], object], launch: Launch, seconds: float) -> bool:
    """Whether a condition came true before the run's end or the time's."""
    end = time.monotonic() + seconds
    while launch.process.poll() is None and time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def kill_once(folder: Path, target: int, delay: float) -> bool:
    """Start the workflow, wait until `target` jobs are done, and a delay later kill it.

    False when it ended before.
    """
    with launched(folder) as launch:
        assert wait_for(lambda: jobs_done(folder) >= target, launch, 3600), launch.said()[-6000:]
        with contextlib.suppress(subprocess.TimeoutExpired):
            launch.process.wait(delay)
        ended = launch.process.poll() is not None
        if ended:
            assert launch.process.returncode == 0, launch.said()[-6000:]
        launch.kill()
    return not ended


def plain(value: Any) -> Any:
    """A parsed JSON value without times."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if key not in TIMES}
    return [plain(item) for item in value] if isinstance(value, list) else value


def timeless(path: Path) -> bytes:
    """A file's bytes, without the fields that say how long something took."""
    data = path.read_bytes()
    if path.suffix == ".json":
        return json.dumps(plain(json.loads(data))).encode()
    if path.suffix == ".csv" and b"seconds" in data.partition(b"\n")[0]:
        rows = list(csv.DictReader(io.StringIO(data.decode())))
        return json.dumps([plain(row) for row in rows]).encode()
    return data


def artefacts(folder: Path) -> dict[str, bytes]:
    """Every file of the run that a clock has no part in."""
    run = folder / "results" / "smoke"
    names = {str(path.relative_to(run)): path for path in run.rglob("*") if path.is_file()}
    return {name: timeless(path) for name, path in names.items() if not APART.match(name)}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The run without a kill, and the seconds it took."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, finish(folder)


@pytest.mark.slow
@pytest.mark.timeout(6 * 3600)
def test_a_run_killed_at_random_moments_ends_the_same(
    undisturbed: tuple[Path, float], tmp_path: Path
) -> None:
    reference, seconds = undisturbed
    jobs = jobs_done(reference)
    rng = np.random.default_rng(SEED)
    # Spread over the run by what is done, and at any moment of the work that follows.
    targets = sorted(rng.integers(0, jobs, KILLS).tolist())
    delays = rng.uniform(0, max(20.0, 2.5 * seconds / jobs), KILLS)
    killed = [
        kill_once(tmp_path, target, delay) for target, delay in zip(targets, delays, strict=True)
    ]
    finish(tmp_path)
    print(f"killed {sum(killed)} times; undisturbed {seconds:.0f} s, {jobs} jobs")
    assert sum(killed) > KILLS / 2
    expected, found = artefacts(reference), artefacts(tmp_path)
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []


def steps_logged(state: Path) -> int:
    """How many steps a training has told of."""
    return sum(path.read_text().count("\n") - 1 for path in state.glob("*/log.csv"))


@pytest.mark.slow
def test_sigterm_to_all_processes_saves_the_training_before_the_run_ends(tmp_path: Path) -> None:
    """As SLURM does at a job's end; what still runs when the first process is gone, it kills."""
    many = {"steps": 500, "checkpoint_every": 500, "validation_images": 0}
    with launched(tmp_path, "--until", "finetune", changes={"finetune": many}) as launch:
        run = tmp_path / "results" / "smoke"
        state = run / ".state" / "finetune"
        assert wait_for(lambda: steps_logged(state) > 2, launch, 500), launch.said()[-6000:]
        launch.kill(signal.SIGTERM)
        saved = list(state.glob("*/step-*"))
    assert launch.process.returncode not in (0, -signal.SIGTERM)
    assert len(saved) == 1
    step = int(saved[0].name.removeprefix("step-"))
    log = (run / "logs" / "finetune.log").read_text()
    assert f"asked to end: saved after step {step} of 500" in log
    assert not (run / "finetune" / "model_index.json").exists()
