"""Phantoms whose lesions lie anywhere: a set on which words of place can be learned.

In a clinic's photographs the lesion is in the middle, and so it is in the built-in phantoms: 1 in
70 lies in the upper left. Here every cell of the 3x3 grid that captions speak of has equally many.

Run: python -m benchmarks.varied_phantoms --out data/varied [--count 630] [--size 128] [--seed 5]

Writes images, masks and `varied.csv`, to be read with `data: {source: table, table: ...}`.
"""

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path

# Before numpy: each job has one core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pandas as pd  # noqa: E402
from PIL import Image  # noqa: E402

from didgen.data.files import write_csv  # noqa: E402
from didgen.data.phantoms import PhantomSpec, cohort, render, spread_centers  # noqa: E402


def draw(out: Path, size: int, order: tuple[PhantomSpec, tuple[float, float]]) -> dict[str, str]:
    """Draw and save one phantom; its row of the table."""
    spec, center = order
    drawn = render(spec, size, center)
    names = {"image": f"images/{spec.id}.png", "mask": f"masks/{spec.id}.png"}
    Image.fromarray(drawn.image).save(out / names["image"])
    Image.fromarray(drawn.mask).save(out / names["mask"])
    known = {name: str(asdict(spec)[name]) for name in ("id", "label", "patient_id", "lesion_id")}
    return known | names


def main() -> None:
    """Draw the set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=630)
    parser.add_argument("--size", type=int, default=128, help="side in pixels")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    for folder in ("images", "masks"):
        (given.out / folder).mkdir(parents=True, exist_ok=True)
    specs = cohort(given.count, seed=given.seed, prefix="PV")
    orders = list(zip(specs, spread_centers(given.count, given.seed), strict=True))
    with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn")) as pool:
        rows = list(pool.map(partial(draw, given.out, given.size), orders, chunksize=16))
    write_csv(given.out / "varied.csv", pd.DataFrame(rows))
    print(f"{len(rows)} phantoms in {given.out}")


if __name__ == "__main__":
    main()
