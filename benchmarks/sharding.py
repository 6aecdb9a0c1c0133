"""What a second core brings to synthesis: as a second shard, a second process, a second thread.

    python -m benchmarks.sharding --run results/smoke [--images 64] [--steps 20] [--repeats 2]

`--run`: a finished run; its data, captions and fine-tuned backbone are used. Wall-clock seconds of
whole commands, start included, the best of a few turns that alternate; a machine with two cores to
spare is needed. Read the ratios. All variants but the one with threads must give the same bytes,
which is checked.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

# How synthesis was before: one process, as many threads as cores.
THREADS = """
import contextlib, sys
import didgen.runtime.reproducible as reproducible
reproducible.reproducible = lambda device: contextlib.nullcontext()
from didgen.cli import main
sys.exit(main())
"""
# name -> shards, processes a shard, threads a process, cores in all
VARIANTS = {
    "one shard, 1 core": (1, 1, 1, 1),
    "two shards, 2 cores": (2, 1, 1, 2),
    "one shard, 2 processes": (1, 2, 1, 2),
    "one shard, 2 threads": (1, 1, 2, 2),
}


def start(given: argparse.Namespace, shard: str, out: Path, variant: str) -> subprocess.Popen:
    """Start the command that makes one shard."""
    _, processes, threads, cores = VARIANTS[variant]
    train = given.run / "data/train.csv"
    classes = sorted(set(pd.read_csv(train)["label"]))[:4]
    command = [sys.executable, *(["-c", THREADS] if threads > 1 else ["-m", "didgen"]), "images"]
    command += ["--train", train, "--captions", given.run / "caption/captions.csv"]
    command += ["--model", given.run / "finetune", "--steps", given.steps, "--scheduler", "dpm++"]
    command += ["--classes", *classes, "--per-class", given.images // len(classes)]
    command += ["--shard", shard, "--workers", processes, "--out", out]
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    return subprocess.Popen(
        list(map(str, command)),
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, allowed),
    )


def measure(given: argparse.Namespace, variant: str) -> tuple[float, dict[str, str]]:
    """Seconds that a variant takes, and the checksum of each of its images."""
    shards = VARIANTS[variant][0]
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / str(k) for k in range(1, shards + 1)]
        started = time.perf_counter()
        running = [
            start(given, f"{k}/{shards}", folder, variant) for k, folder in enumerate(folders, 1)
        ]
        if any([process.wait() for process in running]):
            raise SystemExit(f"{variant}: the command failed; run it by hand to see why")
        seconds = time.perf_counter() - started
        tables = [pd.read_csv(folder / "metadata.csv") for folder in folders]
    table = pd.concat(tables)
    return seconds, dict(zip(table["id"], table["sha256"], strict=True))


def main() -> None:
    """Measure all variants and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=2)
    given = parser.parse_args()
    best, bytes_of = dict.fromkeys(VARIANTS, float("inf")), {}
    for _ in range(given.repeats):
        for variant in VARIANTS:
            seconds, bytes_of[variant] = measure(given, variant)
            best[variant] = min(best[variant], seconds)
    first = next(iter(VARIANTS))
    print(f"{given.images} images, {given.steps} steps")
    for variant, seconds in best.items():
        same = "yes" if bytes_of[variant] == bytes_of[first] else "no"
        print(f"{variant:24}{seconds:8.1f} s {best[first] / seconds:6.2f}x  same bytes: {same}")


if __name__ == "__main__":
    main()
