"""How long the workflow takes to plan: a run with nothing to do, and a large one.

Run: python -m benchmarks.dag [--shards 100] [--seeds 10] [--arms 12] [--profile FILE]
1. The paper's configuration, all of whose files are there and up to date: wall time of `snakemake`
   until it says that there is nothing to be done.
2. `snakemake --dry-run` of that configuration with many shards, seeds and arms: wall time, largest
   memory, jobs. With --profile the calls that it spends its time in are printed, too.
No stage runs; outputs are empty files. Both are given beside the time that `snakemake --version`
takes, which is spent on importing it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
# Names that the stages know; more of them are shares of the synthetic set.
NAMES = ("original", "duplicates", "synthetic", "classic", "oversampled", "weighted")


@dataclass(frozen=True)
class Measured:
    """Wall and processor seconds, largest resident memory in MB, and what was printed."""

    seconds: float
    cpu_seconds: float
    memory_mb: float
    printed: str


def measure(command: Sequence[str], folder: Path) -> Measured:
    """Run a command in a folder.

    Raises: RuntimeError, with the end of what it printed, where it fails.
    """
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with tempfile.TemporaryFile("w+") as printed:
        started = time.monotonic()
        child = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=printed, stderr=subprocess.STDOUT
        )
        # Of this child alone, other than with RUSAGE_CHILDREN.
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.monotonic() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        printed.seek(0)
        text = printed.read()
    if child.returncode != 0:
        raise RuntimeError(f"{' '.join(command[:4])} ... failed:\n{text[-3000:]}")
    return Measured(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, text)


def arms(count: int) -> tuple[str, ...]:
    """So many different arms, the original images first."""
    shares = tuple(f"synthetic-{quarter / 4:g}x" for quarter in range(1, count))
    return (*NAMES, *shares)[:count]


def working_copy(folder: Path, shards: int | None, seeds: int | None, arm_count: int) -> list[str]:
    """The workflow in a folder, with the paper's configuration enlarged; snakemake's command."""
    left_out = shutil.ignore_patterns("__pycache__", "weights")
    for name in ("workflow", "rules", "envs", "didgen"):
        shutil.copytree(ROOT / name, folder / name, ignore=left_out)
    config = yaml.safe_load((ROOT / "config" / "isic2018.yaml").read_text())
    if shards:
        config["shards"] = shards
    if seeds:
        config["seeds"] = list(range(seeds))
    if arm_count:
        config["arms"] = list(arms(arm_count))
    (folder / "paper.yaml").write_text(yaml.safe_dump(config))
    snakemake = ["--snakefile", "workflow/Snakefile", "--cores", "2", "--configfile", "paper.yaml"]
    return [sys.executable, "-m", "snakemake", *snakemake]


def finish(command: list[str], folder: Path) -> int:
    """Make all outputs as empty files, and have snakemake record them; their number."""
    listed = measure([*command, "--summary"], folder).printed.splitlines()
    start = next(index for index, line in enumerate(listed) if line.startswith("output_file"))
    files = [line.split("\t")[0] for line in listed[start + 1 :] if line.count("\t") >= 4]
    for path in (folder / name for name in files):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"tasks": {}}')
        # As a stage marks its files; others stop the run.
        own = [each.name for each in path.parent.iterdir()]
        (path.parent / ".didgen.json").write_text(json.dumps({"files": own}))
    measure([*command, "--touch"], folder)
    return len(files)


def spent(measured: Measured) -> str:
    """Time and memory in words; its processor seconds show how busy the machine was otherwise."""
    times = f"{measured.seconds:.1f} s, {measured.cpu_seconds:.1f} s of processor"
    return f"{times}, {measured.memory_mb:.0f} MB"


def jobs(printed: str) -> int:
    """The total in snakemake's table of jobs."""
    return int(re.search(r"^total +(\d+)", printed, re.MULTILINE).group(1))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--arms", type=int, default=12)
    parser.add_argument("--profile", type=Path, help="also profile the large plan, into this file")
    given = parser.parse_args()
    started = measure([sys.executable, "-m", "snakemake", "--version"], ROOT)
    print(f"snakemake --version: {spent(started)}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        command = working_copy(Path(name), None, None, 0)
        files = finish(command, Path(name))
        done = measure(command, Path(name))
        if "Nothing to be done" not in done.printed:
            raise RuntimeError(f"expected nothing to be done:\n{done.printed[-3000:]}")
        cost = spent(done)
        print(f"nothing to be done, {files} files: {cost}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        command = working_copy(Path(name), given.shards, given.seeds, given.arms)
        plan = measure([*command, "--dry-run", "--quiet"], Path(name))
        sizes = f"{given.shards} shards x {given.seeds} seeds x {given.arms} arms"
        cost = spent(plan)
        count = jobs(measure([*command, "--dry-run", "--quiet", "rules"], Path(name)).printed)
        print(f"plan of {sizes}: {cost}, {count} jobs", flush=True)
        if given.profile:
            profiled = [command[0], "-m", "cProfile", "-o", str(given.profile), *command[1:]]
            measure([*profiled, "--dry-run", "--quiet"], Path(name))
            shown = "import pstats; pstats.Stats({!r}).sort_stats('cumtime').print_stats(40)"
            subprocess.run([sys.executable, "-c", shown.format(str(given.profile))], check=True)


if __name__ == "__main__":
    main()
