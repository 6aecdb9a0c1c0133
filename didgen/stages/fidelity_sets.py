"""What the fidelity stage compares: matched sets of real and synthetic images, and their pairs."""

import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from didgen.data.images import read_image
from didgen.data.leaks import groups_of
from didgen.data.manifest import read_manifest, resolve
from didgen.downstream.feature_spaces import Lite0Features, open_lpips
from didgen.metrics.perceptual import perceptual_distance
from didgen.runtime.progress import track
from didgen.settings.fidelity import Config

LOGGER = logging.getLogger(__name__)
BATCH = 16
Loaded = dict[str, tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]]


def load_sets(config: Config) -> Loaded:
    """Real and synthetic rows of each set, and their counts.

    Images made from a class stand against real images of the same classes; lesion-mask pairs
    against real images that have a mask. Raises: ValueError when no set has two images on each
    side.
    """
    frames = {}
    for name, path in (("real", getattr(config, config.reference)), ("made", config.synthetic)):
        frame = read_manifest(path)
        for column in ("image", "mask"):
            frame[column] = resolve(path, frame[column])
        frames[name] = frame
    real, made = frames["real"], frames["made"]
    paired = made["mask"].notna()
    labelled = real["label"].isin(set(made.loc[~paired, "label"]) - {""})
    chosen = {
        "images": (real[labelled], made[~paired & (made["label"] != "")], config.match_classes),
        # Their masks were asked for, not their classes.
        "pairs": (real[real["mask"].notna()], made[paired], False),
    }
    loaded: Loaded = {}
    for name, (ours, theirs, matched) in chosen.items():
        if theirs.empty:
            LOGGER.info("%s: no synthetic ones", name)
            continue
        if matched:
            ours, theirs = match_classes(ours, theirs, config.seed)
        limited = [_limited(part, config.max_images, config.seed) for part in (ours, theirs)]
        if name == "pairs":
            limited = [part.assign(label="") for part in limited]
        lesions = len(set(groups_of(limited[0])))
        if min(lesions, len(limited[1])) < 4:
            LOGGER.warning(
                "%s left out: found %d real lesions and %d synthetic images, expected at least 4 "
                "of each to compare; make more",
                name,
                lesions,
                len(limited[1]),
            )
            continue
        counts = {key: int(n) for key, n in limited[1]["label"].value_counts().items() if key}
        loaded[name] = (*limited, {
            "n_real": len(limited[0]),
            "n_synthetic": len(limited[1]),
            "n_real_there": len(chosen[name][0]),
            "n_synthetic_there": len(chosen[name][1]),
            "classes": counts if matched else {},
        })  # fmt: skip
    return loaded


def match_classes(
    real: pd.DataFrame, synthetic: pd.DataFrame, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows drawn so that every class has the same number in both: what the smaller one has.

    Sets that differ in their classes alone would be far apart, however good their images.
    """
    parts: tuple[list[pd.DataFrame], list[pd.DataFrame]] = ([], [])
    for label in sorted(set(real["label"]) & set(synthetic["label"])):
        own = [frame[frame["label"] == label] for frame in (real, synthetic)]
        count = min(map(len, own))
        for part, frame in zip(parts, own, strict=True):
            part.append(frame.sample(count, random_state=seed))
    empty = [real.iloc[:0]], [synthetic.iloc[:0]]
    drawn = [
        pd.concat(part or none, ignore_index=True) for part, none in zip(parts, empty, strict=True)
    ]
    for name, before, after in zip(("real", "synthetic"), (real, synthetic), drawn, strict=True):
        if len(after) < len(before):
            LOGGER.info("%d of %d %s images left out: equal numbers of each class",
                        len(before) - len(after), len(before), name)  # fmt: skip
    return drawn[0], drawn[1]


def _limited(frame: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    if len(frame) <= count:
        return frame.reset_index(drop=True)
    LOGGER.info("%d of %d images left out: max_images", len(frame) - count, len(frame))
    return frame.sample(count, random_state=seed).reset_index(drop=True)


def read_batch(paths: Sequence[Path], side: int) -> torch.Tensor:
    """Images as uint8 (B, 3, side, side), squashed with Pillow's bicubic filter and antialias."""
    sized = [
        np.asarray(Image.fromarray(read_image(path)).resize((side, side), Image.Resampling.BICUBIC))
        for path in paths
    ]
    return torch.from_numpy(np.stack(sized)).permute(0, 3, 1, 2)


def pair_values(
    first: Sequence[Path], second: Sequence[Path], config: Config
) -> dict[str, np.ndarray]:
    """MS-SSIM and the perceptual distance of each pair of files, by name, (P,)."""
    name, distance = perceptual(config.lpips_weights)
    distances: dict[str, list[torch.Tensor]] = {"MS-SSIM": [], name: []}
    with torch.inference_mode():
        for start in track(range(0, len(first), BATCH), label="pairs"):
            a, b = (read_batch(part[start : start + BATCH], config.pair_side).float()
                    for part in (first, second))  # fmt: skip
            distances["MS-SSIM"].append(
                multiscale_structural_similarity_index_measure(
                    a, b, data_range=255.0, reduction="none"
                ).reshape(-1)
            )
            distances[name].append(distance(a / 127.5 - 1, b / 127.5 - 1).reshape(-1))
    return {key: torch.cat(parts).double().numpy() for key, parts in distances.items()}


@functools.cache
def perceptual(weights: str | None) -> tuple[str, Callable[..., torch.Tensor]]:
    """The name and function of a distance of images in [-1, 1], BCHW to (B,)."""
    if weights is not None:
        return "LPIPS (AlexNet)", open_lpips(weights)
    features = Lite0Features()
    return (
        "perceptual distance (EfficientNet-Lite0, not LPIPS)",
        lambda a, b: perceptual_distance(features(a), features(b)),
    )
