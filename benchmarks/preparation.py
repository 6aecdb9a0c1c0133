"""Speed and memory of the preparation, beside a plain Pillow loop over the same photographs.

Run: OMP_NUM_THREADS=1 python -m benchmarks.preparation [--folder PHOTOGRAPHS] [--size 128]
Without a folder, phantoms are drawn, enlarged to 1024 x 768 px and saved as JPEG. A plain loop
opens, crops, resizes and saves; it neither checks nor hashes, nor keeps files whole on a full disk.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

# Before numpy: its matrix products would otherwise use every core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np  # noqa: E402
from PIL import Image, ImageOps  # noqa: E402

from didgen.data.images import square_box  # noqa: E402
from didgen.data.preparation import PreparationPlan, prepare_images, prepare_one  # noqa: E402
from didgen.data.sources.records import FilePixels, Record  # noqa: E402


def photographs(folder: Path, count: int = 24) -> list[Path]:
    """Phantoms as JPEG files of 1024 x 768 px, with the grain that a camera adds."""
    # Not above: the workers load this file, too, and shall start as quickly as those of a run.
    from didgen.data.phantoms import cohort, render

    rng = np.random.default_rng(0)
    for number, spec in enumerate(cohort(count, seed=1)):
        drawn = Image.fromarray(render(spec, 256).image).crop((0, 32, 256, 224))
        pixels = np.asarray(drawn.resize((1024, 768), Image.Resampling.BICUBIC), np.float32)
        noisy = np.clip(pixels + rng.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{number:03d}.jpg", quality=92)
    return sorted(folder.glob("*.jpg"))


def records_of(files: list[Path], count: int) -> list[Record]:
    """As many records as asked for, over the files in turn."""
    return [
        Record(f"i{n:06d}", "NV", "", "", "benchmark", "", FilePixels(files[n % len(files)]))
        for n in range(count)
    ]


def plain(path: Path, out: Path, size: int) -> None:
    """What one writes without this project: open, crop, resize, save."""
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    image = image.crop(square_box(image.height, image.width, "crop"))
    image.resize((size, size), Image.Resampling.BICUBIC).save(out)


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Wall-clock and processor seconds of a call, the processes that it started included."""
    wall, spent = time.perf_counter(), _processor()
    work()
    return time.perf_counter() - wall, _processor() - spent


def _processor() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def speed(files: list[Path], size: int, out: Path) -> None:
    """Print images a second of one core: the plain loop, the preparation, and its extras."""
    records = records_of(files, len(files))
    (out / "plain").mkdir()
    runs = {
        "plain Pillow loop": lambda: [
            plain(f, out / "plain" / f"{f.stem}.png", size) for f in files
        ]
    }
    for name, options in (
        ("preparation", {"hair_removal": False, "fingerprints": False}),
        ("  and fingerprints", {"hair_removal": False, "fingerprints": True}),
        ("  and hair removal", {"hair_removal": True, "fingerprints": False}),
    ):
        plan = PreparationPlan(out / name.strip(), size, "crop", **options)
        prepare_one(records[0], plan)
        runs[name] = lambda plan=plan: [prepare_one(record, plan) for record in records]
    base = None
    for name, work in runs.items():
        work()
        spent = min(seconds(work)[1] for _ in range(3))
        base = base or spent
        print(f"{name:20s} {len(files) / spent:8.1f} images/s a core   {base / spent:5.2f} x plain")


def plan_of(out: Path, size: int, near: bool) -> PreparationPlan:
    """A preparation with or without fingerprints."""
    return PreparationPlan(out, size, "crop", hair_removal=False, fingerprints=near)


def scaling(files: list[Path], size: int, out: Path, count: int, near: bool) -> None:
    """Print the wall-clock of two processes against one, starting them included."""
    records, walls = records_of(files, count), []
    for workers in (1, 2):
        plan = plan_of(out / f"w{workers}{near}", size, near)
        walls.append(seconds(lambda w=workers, p=plan: prepare_images(records, p, w))[0])
    what = " with fingerprints" if near else ""
    print(f"{count} images{what}: 1 process {walls[0]:.1f} s, 2 processes {walls[1]:.1f} s, "
          f"{walls[0] / walls[1]:.2f} x")  # fmt: skip


def memory(files: list[Path], size: int, count: int, near: bool) -> float:
    """Peak memory in MB of a preparation of `count` images by two workers in fresh processes."""
    words = [sys.executable, __file__, "--measure", str(count), "--size", str(size),
             "--folder", str(files[0].parent), *(["--near"] if near else [])]  # fmt: skip
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def measure(files: list[Path], size: int, count: int, near: bool) -> None:
    """Prepare and print the peak memory in MB of this process and all that it started, as JSON."""
    ended, peak = threading.Event(), [0.0]

    def sample() -> None:
        while not ended.wait(0.1):
            peak[0] = max(peak[0], sum(map(_proportional, _family(os.getpid()))))

    sampler = threading.Thread(target=sample)
    sampler.start()
    with tempfile.TemporaryDirectory() as out:
        prepare_images(records_of(files, count), plan_of(Path(out), size, near), 2)
    ended.set()
    sampler.join()
    print(json.dumps(round(peak[0])))


def _family(process: int) -> list[int]:
    """A process and all its descendants."""
    processes = [process]
    for one in processes:
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                processes += map(int, children.read_text().split())
    return processes


def _proportional(process: int) -> float:
    """Memory of a process in MB, what it shares with others divided by their number."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def main() -> None:
    """Print speed against the plain loop, scaling to two processes, and memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="JPEG photographs to use instead of phantoms")
    parser.add_argument("--size", type=int, default=128, help="side in pixels")
    parser.add_argument("--counts", type=int, nargs=2, default=(500, 5000), help="for memory")
    parser.add_argument("--scaling", type=int, default=2000, help="images for two processes")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--near", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        files = sorted(options.folder.glob("*.jpg")) if options.folder else photographs(Path(place))
        if not files:
            parser.error(f"{options.folder}: no *.jpg; name a folder of JPEG photographs")
        if options.measure:
            measure(files, options.size, options.measure, options.near)
            return
        with Image.open(files[0]) as first:
            print(f"{len(files)} photographs, the first {first.width} x {first.height} px")
        with tempfile.TemporaryDirectory() as out:
            speed(files, options.size, Path(out))
            for near in (False, True):
                scaling(files, options.size, Path(out), options.scaling, near)
        for near in (False, True):
            what = " with fingerprints" if near else ""
            for count in options.counts:
                peak = memory(files, options.size, count, near)
                print(f"{count:6d} images{what}: peak {peak:.0f} MB of all processes")


if __name__ == "__main__":
    main()
