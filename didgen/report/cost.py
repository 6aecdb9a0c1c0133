"""What a run took: wall time, memory and energy of each stage, and where it ran."""

import csv
import os
import platform
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from didgen.report.numbers import plural
from didgen.report.reading import broken
from didgen.report.tables import Cell, Row, Table
from didgen.settings.methods import DIDGEN, METHODS

# Server processors draw 5 to 10 W a busy core, memory and board not counted; an assumption.
WATTS_A_CORE = 10.0
# Stages whose jobs hold a GPU where there is one, those of `MAKING` if the method has a network.
MAKING = ("train", "images", "pairs")
GPU_STAGES = (
    *(*MAKING, "finetune", "filter", "maps"),
    *("fidelity", "label_judges", "label_fidelity", "classify", "segment", "external_test"),
)
COLUMNS = ("s", "max_rss", "cpu_time")


@dataclass(frozen=True)
class Job:
    """One job's benchmark: wall and processor seconds, the largest resident memory in MB.

    None where the job ended before Snakemake could look. gpu: whether it held one if there was any.
    """

    stage: str
    seconds: float
    memory_mb: float | None
    cpu_seconds: float | None
    gpu: bool


def jobs(run_dir: Path) -> list[Job]:
    """Every job whose benchmark file the run has, by stage and name.

    Raises: BrokenResult for a file without the columns of a benchmark, or without numbers in it.
    """
    folder = run_dir / "benchmarks"
    measured = []
    for path in sorted(folder.rglob("*.tsv")):
        parts = path.relative_to(folder).with_suffix("").parts
        # Jobs of further generators lie in a folder of each.
        parts = parts[1:] if re.fullmatch(r"generator\d+", parts[0]) else parts
        of_method = parts[0] == "methods" and len(parts) > 2
        method, stage = parts[1:3] if of_method else (DIDGEN, parts[0])
        gpu = stage in GPU_STAGES
        if stage in MAKING and method in METHODS:
            gpu = METHODS[method].network
        label = stage if method == DIDGEN else f"{stage}, {method}"
        measured += [_job(label, path, row, gpu) for row in _rows(path)]
    return measured


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    if not rows or not set(COLUMNS) <= set(rows[0]):
        columns = ", ".join(rows[0]) if rows else "no row"
        raise broken(path, columns, f"a benchmark with the columns {', '.join(COLUMNS)}")
    return rows


def _job(stage: str, path: Path, row: dict[str, str], gpu: bool) -> Job:
    try:
        values = [None if row[name] in ("", "-", "NA") else float(row[name]) for name in COLUMNS]
    except (TypeError, ValueError):
        raise broken(path, str([row[name] for name in COLUMNS]), "numbers") from None
    if values[0] is None:
        raise broken(path, row["s"], "seconds in the column s")
    return Job(stage, values[0], values[1], values[2], gpu)


def energy_kwh(cpu_seconds: float, gpu_seconds: float, gpu_watts: float) -> float:
    """Energy in kWh of busy cores at `WATTS_A_CORE` and of GPUs at their power limit.

    An estimate, and for GPUs an upper bound: they rarely draw their limit. Cooling is not in it.
    """
    return (cpu_seconds * WATTS_A_CORE + gpu_seconds * gpu_watts) / 3.6e6


def cost_table(jobs: list[Job], gpu_watts: float = 0.0) -> Table | None:
    """Per stage: jobs, hours in sum, the longest in minutes, the largest memory, energy.

    `gpu_watts`: the power limit of one GPU; 0 where none is known. None without jobs.
    """
    if not jobs:
        return None
    stages: dict[str, list[Job]] = {}
    for job in jobs:
        stages.setdefault(job.stage, []).append(job)
    ordered = sorted(stages, key=lambda name: -sum(job.seconds for job in stages[name]))
    rows = [_row(name, stages[name], gpu_watts) for name in ordered]
    if len(rows) > 1:
        rows.append(_row("all", jobs, gpu_watts, "total"))
    unknown = sum(job.memory_mb is None for job in jobs)
    note = f"Energy is an estimate: {WATTS_A_CORE:.0f} W for each busy core"
    if gpu_watts:
        note += f", {gpu_watts:.0f} W (its limit) for a GPU while a job holds it."
    else:
        # The page may be written on a machine without the cards of the jobs.
        note += ". A GPU's energy is not counted: none was found where this page was written."
    note += " Of a resumed job only the last attempt counts."
    note += f" Too short to be measured: {plural(unknown, 'job')}." if unknown else ""
    columns = ("jobs", "hours in sum", "longest, min", "largest memory, GB", "energy, kWh")
    return Table("Time, memory and energy", "stage", columns, tuple(rows), note)


def _row(heading: str, jobs: list[Job], gpu_watts: float, kind: str = "") -> Row:
    memory = [job.memory_mb for job in jobs if job.memory_mb is not None]
    cpu = sum(job.cpu_seconds or 0.0 for job in jobs)
    gpu = sum(job.seconds for job in jobs if job.gpu)
    cells = (
        Cell(value=len(jobs), places=0),
        Cell(value=sum(job.seconds for job in jobs) / 3600, places=2),
        Cell(value=max(job.seconds for job in jobs) / 60, places=1),
        Cell(value=max(memory) / 1024, places=1) if memory else Cell(),
        Cell(value=energy_kwh(cpu, gpu, gpu_watts), places=3),
    )
    return Row(heading, cells, kind)


def machine() -> tuple[list[tuple[str, str]], float]:
    """Facts about this machine, and the power limit of its largest GPU in W (0 without one)."""
    cores = len(os.sched_getaffinity(0))
    facts = [("System", platform.platform(terse=True)), ("Processor", _processor())]
    facts.append(("Cores", f"{cores} of {os.cpu_count()} usable"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    facts.append(("Memory", f"{memory / 2**30:.0f} GiB"))
    cards, watts = gpus(_said("nvidia-smi", "--query-gpu=name,memory.total,power.limit",
                              "--format=csv,noheader,nounits"))  # fmt: skip
    facts.append(("GPUs", ", ".join(cards) or "none"))
    return facts, watts


def gpus(listed: str) -> tuple[list[str], float]:
    """Names with memory, and the largest power limit in W, from lines of `nvidia-smi`."""
    cards, watts = [], 0.0
    for line in listed.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) != 3:
            continue
        memory = f" ({float(parts[1]) / 1024:.0f} GiB)" if parts[1].isdigit() else ""
        cards.append(parts[0] + memory)
        # Some cards do not report it: "[N/A]".
        watts = max(watts, float(parts[2]) if parts[2].replace(".", "", 1).isdigit() else 0.0)
    return cards, watts


def commit() -> str | None:
    """The commit of the checkout that this package runs from, and whether it was edited since.

    None outside of a checkout.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    named = _said("git", "-C", str(root), "rev-parse", "HEAD").strip()
    edited = _said("git", "-C", str(root), "status", "--porcelain", "--untracked-files=no").strip()
    return (f"{named}, with edits" if edited else named) or None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _said(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
