"""Splits that keep lesions, patients and duplicates on one side, stratified by class."""

from collections.abc import Sequence
from itertools import islice

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

# A share is met as m of k folds. More folds meet it closer, but leave less of a rare class in each.
MOST_FOLDS = 20


class SplitError(ValueError):
    """A split that cannot be made; the message says why and what to change."""


def related_groups(*keys: Sequence[str]) -> np.ndarray:
    """Number the groups of images that share any key, directly or through others.

    Each argument gives one key an image (a lesion id, a patient id, the name of its cluster of
    duplicates); "" means unknown and relates to nothing. Shape of the result: (N,), integers.
    """
    n = len(keys[0])
    rows, columns, offset = [], [], n
    for values in keys:
        names = {name: offset + i for i, name in enumerate(sorted(set(values) - {""}))}
        offset += len(names)
        linked = [(i, names[name]) for i, name in enumerate(values) if name]
        rows += [i for i, _ in linked]
        columns += [j for _, j in linked]
    links = coo_array((np.ones(len(rows)), (rows, columns)), shape=(offset, offset))
    return connected_components(links, directed=False)[1][:n]


def grouped_split(
    strata: Sequence[str],
    groups: np.ndarray,
    val_fraction: float,
    test_fraction: float,
    seed: int,
) -> np.ndarray:
    """Assign "train", "val" or "test" to each image; a group never crosses, strata stay even.

    Both fractions are of all images, and met as `share_of_folds` says. Shapes: (N,).
    Raises: `SplitError` when there are too few groups or images of a class for three splits.
    """
    classes = np.asarray(strata)
    if np.unique(groups).size < 3:
        raise SplitError(
            f"found {np.unique(groups).size} independent groups of images (lesions, patients and "
            "duplicates), expected at least 3 to make train, val and test; add images of other "
            "patients"
        )
    split = np.full(len(classes), "train", dtype=object)
    rest = np.arange(len(classes))
    for name, fraction, left in (
        ("test", test_fraction, 1.0),
        ("val", val_fraction, 1.0 - test_fraction),
    ):
        what = f"{name}_fraction {fraction}"
        chosen = _part(classes[rest], groups[rest], fraction / left, seed, what)
        split[rest[chosen]] = name
        rest = np.delete(rest, chosen)
    return split


def carved_split(
    split: Sequence[str], strata: Sequence[str], groups: np.ndarray, val_fraction: float, seed: int
) -> np.ndarray:
    """A split without "val", and with one: taken from "train" by group, strata even.

    `val_fraction` is of the images that were "train". Shapes: (N,).
    Raises: `SplitError` when train has too few groups or images of a class.
    """
    carved = np.asarray(split, dtype=object).copy()
    train = np.flatnonzero(carved == "train")
    what = f"val_fraction {val_fraction} of train, as the source has no val"
    chosen = _part(np.asarray(strata)[train], groups[train], val_fraction, seed, what)
    carved[train[chosen]] = "val"
    return carved


def recarved_split(
    split: Sequence[str],
    labelled: np.ndarray,
    strata: Sequence[str],
    groups: np.ndarray,
    val_fraction: float,
    seed: int,
) -> np.ndarray:
    """A split whose labelled images have a new "val", taken by group from their "train" and "val".

    `val_fraction` is of these images. "test" and the "val" of images without a label stay, as do
    labelled relatives of the latter; images without a label follow a labelled relative from "train"
    into "val". Shapes: (N,); `labelled`: bool. Raises: `SplitError` for too few groups or images.
    """
    carved = np.asarray(split, dtype=object).copy()
    fixed = np.isin(groups, groups[~labelled & (carved == "val")])
    pool = np.flatnonzero(labelled & (carved != "test") & ~fixed)
    carved[pool] = "train"
    what = f"val_fraction {val_fraction} of train and val, as val has too few images of a class"
    chosen = pool[_part(np.asarray(strata)[pool], groups[pool], val_fraction, seed, what)]
    carved[(carved == "train") & np.isin(groups, groups[chosen])] = "val"
    return carved


def share_of_folds(share: float, most: int) -> tuple[int, int]:
    """The m of k folds, k at most `most`, nearest to a share; of those as near, the fewest folds.

    Within a fiftieth of the share nearer is not better: 0.33 is one of three.
    """

    def rank(pair: tuple[int, int]) -> tuple[float, int]:
        error = abs(pair[0] / pair[1] - share)
        return (error if error > share / 50 else 0.0, pair[1])

    return min(((min(k - 1, max(1, round(share * k))), k) for k in range(2, most + 1)), key=rank)


def _part(strata: np.ndarray, groups: np.ndarray, share: float, seed: int, what: str) -> np.ndarray:
    """The rows of a share of the images, groups whole, strata even. `what`: its name in messages.

    Some folds of scikit-learn's StratifiedGroupKFold together.
    """
    least = max(2, round(1 / share))
    n_groups = np.unique(groups).size
    if n_groups < least:
        raise SplitError(
            f"found {n_groups} independent groups, expected at least {least} for {what}; add "
            "images or raise the fraction"
        )
    counts = np.unique(strata, return_counts=True)[1]
    if counts.max() < least:
        raise SplitError(
            f"found at most {counts.max()} images of a class, expected at least {least} for "
            f"{what}; add images or raise the fraction"
        )
    count, folds = share_of_folds(share, max(least, min(MOST_FOLDS, n_groups, counts.min())))
    folder = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    parts = folder.split(np.zeros(len(strata)), strata, groups)
    return np.sort(np.concatenate([chosen for _, chosen in islice(parts, count)]))
