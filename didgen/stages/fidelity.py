"""How close the synthetic images are to real ones, and how much they differ among themselves."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from didgen.data.leaks import groups_of
from didgen.downstream.feature_spaces import FeatureSpace, open_space
from didgen.metrics.frechet import (
    TooFewImages,
    axes_for,
    check_enough,
    frechet_distance,
    principal_axes,
)
from didgen.metrics.half_samples import half_sample_intervals, least_half, matched_with_floor
from didgen.metrics.kernel_distance import kernel_distance
from didgen.metrics.manifold import precision_recall_density_coverage
from didgen.metrics.pair_means import NoPairs, draw_pairs, pair_mean_interval
from didgen.runtime.files import write_csv, write_json
from didgen.runtime.outputs import output_folder, paths_read
from didgen.runtime.precision import default_device
from didgen.runtime.progress import track
from didgen.settings.fidelity import Config, Space
from didgen.stages.fidelity_sets import load_sets, pair_values, read_batch

LOGGER = logging.getLogger(__name__)
BATCH = 32


COLUMNS = (
    *("set", "n_synthetic", "n_real", "space", "measure", "value"),
    *("low", "high", "n_matched", "synthetic", "real"),
)


def run(config: Config) -> None:
    """Write `fidelity.json`, `measures.csv` and `config.json`.

    Images made from a class and lesion-mask pairs are two sets, compared separately. A measure for
    which a set is too small is refused by name, with what would help; a set too small for any is
    left out with a warning. Raises: ValueError for missing weights.
    """
    weights = (config.inception_weights, config.dinov2_weights, config.lpips_weights)
    read = paths_read(config, *weights)
    with output_folder(config.out, "fidelity", read) as out:
        _run(config, out)


def _run(config: Config, out: Path) -> None:
    sets = load_sets(config)
    spaces = [_open(name, config) for name in config.spaces]
    results = {}
    for name, (real, synthetic, counts) in sets.items():
        LOGGER.info("%s: %d synthetic against %d real images", name, len(synthetic), len(real))
        results[name] = counts | {
            "spaces": {s.name: _in_space(s, real, synthetic, config) for s in spaces},
            "pairs": _pairs(real, synthetic, config),
        }
    write_csv(out / "measures.csv", pd.DataFrame(_rows(results), columns=COLUMNS))
    write_json(out / "config.json", json.loads(config.model_dump_json()))
    write_json(
        out / "fidelity.json",
        {"reference": config.reference, "confidence": config.confidence, "sets": results},
    )


def _open(name: Space, config: Config) -> FeatureSpace:
    weights = {"inception": config.inception_weights, "dinov2": config.dinov2_weights}.get(name)
    return open_space(name, weights, default_device())


def _in_space(
    space: FeatureSpace, real: pd.DataFrame, synthetic: pd.DataFrame, config: Config
) -> dict[str, Any]:
    """Every measure of one set in one space, with N, interval and the floor of real images."""
    of_real, of_synthetic = (
        _features(space, frame["image"].tolist()) for frame in (real, synthetic)
    )
    clusters = groups_of(real)
    measures, biased, refused = _measures(space, of_real, of_synthetic, clusters, config)
    limits = config.confidence, config.repeats, config.seed
    values = half_sample_intervals(measures, of_real, of_synthetic, clusters, *limits)
    n, matched = matched_with_floor(
        measures, of_real, of_synthetic, clusters, config.splits, config.seed
    )
    entries: dict[str, dict[str, Any]] = {}
    for name, own in values.items():
        at_equal_size = {
            kind: dict(zip(("mean", "sd"), of[name], strict=True)) for kind, of in matched.items()
        }
        entries[name] = {
            "value": own.value,
            "interval": _possible(name, *own.interval),
            "matched": {"n": n, **at_equal_size},
        }
        if name in biased:
            value, low, high = own.extrapolated
            extrapolated = f"{name}, extrapolated to infinitely many images"
            entries[extrapolated] = {"value": value, "interval": [low, high], "matched": None}
    return {
        "network": space.network,
        "weights": space.weights,
        "dims": space.dims,
        "preprocessing": f"squashed to {space.side}x{space.side} px, Pillow bicubic with antialias",
        "interval": "spread over random halves of both sets, whole lesions, without replacement",
        "neighbours": config.neighbours,
        "measures": entries,
        "refused": refused,
    }


def _possible(name: str, low: float, high: float) -> list[float]:
    """An interval cut to the values that the measure can take; only kernel distances go below 0."""
    if "kernel" in name or name == "KID":
        return [low, high]
    shares = ("precision", "recall", "coverage")
    return [max(0.0, low), min(1.0, high) if name in shares else high]


def _measures(
    space: FeatureSpace, real: np.ndarray, synthetic: np.ndarray, clusters: np.ndarray,
    config: Config,
) -> tuple[Any, list[str], dict[str, str]]:  # fmt: skip
    """A function of features to all measures that the sets allow, and why others are refused.

    Also the names of those whose bias falls as 1 / N from halves of the sets on.
    """
    refused: dict[str, str] = {}
    biased = []
    # Halves of both sets, which hold whole lesions.
    least = min(least_half(clusters), len(synthetic) // 2)
    distances: dict[str, Any] = {space.kernel: kernel_distance}
    try:
        check_enough(len(real), len(synthetic), space.dims)
        distances[space.distance] = frechet_distance
        # With fewer images than features a covariance has no full rank, and the bias another law.
        biased += [space.distance] * (least > space.dims)
    except TooFewImages as error:
        refused[space.distance] = str(error)
    try:
        axes = principal_axes(real, axes_for(min(len(real), len(synthetic))))
        reduced = f"{space.distance}, {axes.shape[1]} principal components"
        distances[reduced] = lambda r, s: frechet_distance(r @ axes, s @ axes)
        biased += [reduced] * (least > axes.shape[1])
    except TooFewImages as error:
        refused[f"{space.distance}, principal components"] = str(error)
    # Halves must still have k neighbours.
    near = least > 2 * config.neighbours
    if not near:
        refused["precision, recall, density, coverage"] = (
            f"found {len(real)} real and {len(synthetic)} synthetic images, of which a half has as "
            f"few as {least}, expected more than {2 * config.neighbours}; lower neighbours or make "
            "more images"
        )

    def measures(r: np.ndarray, s: np.ndarray) -> dict[str, float]:
        values = {name: distance(r, s) for name, distance in distances.items()}
        return values | (precision_recall_density_coverage(r, s, config.neighbours) if near else {})

    return measures, biased, refused


def _features(space: FeatureSpace, paths: list[Path]) -> np.ndarray:
    """The features of images, (N, D)."""
    starts = track(range(0, len(paths), BATCH), label=f"features, {space.name}")
    with torch.inference_mode():
        parts = [space.embed(read_batch(paths[s : s + BATCH], space.side)) for s in starts]
    return torch.cat(parts).double().numpy()


def _pairs(real: pd.DataFrame, synthetic: pd.DataFrame, config: Config) -> dict[str, Any]:
    """Mean MS-SSIM and perceptual distance of pairs within and across the sets."""
    kinds = {
        "synthetic": (synthetic, None),
        "real": (real, None),
        "real and synthetic": (real, synthetic),
    }
    results: dict[str, Any] = {
        "side": config.pair_side,
        "drawn": "pairs of one class and two lesions, every class in turn; intervals: over the "
        "lesions that pairs share",
        "measures": {},
        "refused": {},
    }
    for kind, (first, second) in kinds.items():
        labels = first["label"].to_numpy(str)
        others = None if second is None else second["label"].to_numpy(str)
        other = first if second is None else second
        units = groups_of(first), groups_of(other)
        try:
            pairs = draw_pairs(labels, others, config.pairs, config.seed, units[0])
        except NoPairs as error:
            LOGGER.warning("pairs, %s: %s", kind, error)
            results["refused"][f"MS-SSIM and perceptual distance, {kind}"] = str(error)
            continue
        files = first["image"].to_numpy()[pairs.first], other["image"].to_numpy()[pairs.second]
        for name, values in pair_values(*files, config).items():
            mean, low, high = pair_mean_interval(values, pairs, units, confidence=config.confidence)
            own = results["measures"].setdefault(name, {})
            own[kind] = {"mean": mean, "interval": [max(0.0, low), high], "n_pairs": len(values)}
    return results


def _rows(sets: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a set, space and measure."""
    rows = []
    for name, own in sets.items():
        base = {"set": name, "n_synthetic": own["n_synthetic"], "n_real": own["n_real"]}
        for space, results in own["spaces"].items():
            for measure, each in results["measures"].items():
                low, high = each["interval"]
                row = {"space": space, "measure": measure, "value": each["value"]}
                row |= {"low": low, "high": high}
                if matched := each["matched"]:
                    row |= {"n_matched": matched["n"]}
                    row |= {kind: matched[kind]["mean"] for kind in ("synthetic", "real")}
                rows.append(base | row)
        for measure, kinds in own["pairs"]["measures"].items():
            for kind, each in kinds.items():
                low, high = each["interval"]
                row = {"space": kind, "measure": measure, "value": each["mean"]}
                rows.append(base | row | {"low": low, "high": high})
    return rows
