"""Speed of the procedural generator: images a second on one core, beside writing them as PNG.

Run: OMP_NUM_THREADS=1 python -m benchmarks.phantoms
"""

from __future__ import annotations

import argparse
import io
import os
import time
from collections.abc import Callable

# Before numpy: its matrix products would otherwise use every core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from PIL import Image  # noqa: E402

from didgen.data.phantoms import Phantom, cohort, render  # noqa: E402


def encode(phantom: Phantom) -> bytes:
    """Image and mask as PNG bytes, as a data set on disk holds them."""
    buffer = io.BytesIO()
    Image.fromarray(phantom.image).save(buffer, format="PNG")
    Image.fromarray(phantom.mask).save(buffer, format="PNG")
    return buffer.getvalue()


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Wall-clock and processor seconds of a call."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def main() -> None:
    """Print images a second and the ratio to encoding the same images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=280, help="images to draw")
    parser.add_argument("--size", type=int, default=128, help="side in pixels")
    options = parser.parse_args()
    specs = cohort(options.images, seed=1)
    phantoms: list[Phantom] = []
    for spec in specs[:7]:
        render(spec, options.size)
    wall, processor = seconds(lambda: phantoms.extend(render(s, options.size) for s in specs))
    _, png = seconds(lambda: [encode(p) for p in phantoms])
    n = len(specs)
    print(f"size {options.size} px, {n} images, one core")
    print(
        f"draw       {n / processor:8.1f} images/s of processor time ({n / wall:.1f} by the wall)"
    )
    print(f"PNG        {n / png:8.1f} images/s of processor time")
    print(f"draw / PNG {processor / png:8.2f} times the cost of encoding")


if __name__ == "__main__":
    main()
