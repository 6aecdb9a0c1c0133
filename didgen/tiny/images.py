"""Phantom photographs for the tiny backbone's pretraining, drawn once and kept in the work folder.

They are kept in shards, so that drawing more never redraws what is there.
"""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from didgen.data.phantoms import cohort, render, spread_centers
from didgen.runtime.files import atomic_path
from didgen.runtime.progress import track

SHARD = 256
# image uint8 (H, W, 3), mask bool (H, W), diagnosis code -> caption, caption of the mirror image
Captioner = Callable[[np.ndarray, np.ndarray, str], tuple[str, str]]


@dataclass(frozen=True)
class PhantomSet:
    """Phantoms in memory.

    Shapes: images uint8 (N, H, W, 3), masks bool (N, H, W), labels (N,) str, captions (N, 2) str:
    the caption of the image and that of its mirror image.
    """

    images: np.ndarray
    masks: np.ndarray
    labels: np.ndarray
    captions: np.ndarray


def draw_phantoms(
    folder: Path,
    count: int,
    size: int,
    seed: int,
    captioner: Captioner,
    workers: int = 2,
    shard: int = SHARD,
) -> PhantomSet:
    """At least `count` phantoms, equally many of each class, `size` px, in whole shards."""
    shards = range(-(-count // shard))
    paths = [folder / f"placed_{size}_{seed}_{k:03d}.npz" for k in shards]
    missing = [(path, k) for path, k in zip(paths, shards, strict=True) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    if workers == 1:
        for path, k in track(missing, label="shards of phantoms"):
            draw_shard(path, k, shard, size, seed, captioner)
    elif missing:
        # Forked children of a process with torch's threads can hang.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            jobs = [
                pool.submit(draw_shard, path, k, shard, size, seed, captioner)
                for path, k in missing
            ]
            for job in track(jobs, label="shards of phantoms"):
                job.result()
    parts = [np.load(path) for path in paths]
    names = ("images", "masks", "labels", "captions")
    return PhantomSet(**{name: np.concatenate([part[name] for part in parts]) for name in names})


def draw_shard(
    path: Path, number: int, count: int, size: int, seed: int, captioner: Captioner
) -> None:
    """Draw and describe one shard, a cohort of its own, and write it atomically.

    In every second phantom the lesion lies anywhere.
    """
    own_seed = seed * 10_000 + number
    specs = cohort(count, seed=own_seed)
    centers = spread_centers(count, own_seed)
    # In a clinic's photographs lesions lie in the middle; words of place need others too.
    phantoms = [
        render(spec, size, center if k % 2 else None)
        for k, (spec, center) in enumerate(zip(specs, centers, strict=True))
    ]
    captions = [captioner(item.image, item.mask, item.label) for item in phantoms]
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(
            stream,
            images=np.stack([item.image for item in phantoms]),
            masks=np.stack([item.mask for item in phantoms]),
            labels=np.array([item.label for item in phantoms]),
            captions=np.array(captions),
        )
