"""Splits that keep lesions, patients and duplicates on one side, stratified by class."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold


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

    scikit-learn's StratifiedGroupKFold, so a fraction is met as the nearest 1/k. Shapes: (N,).
    Raises: `SplitError` when there are too few groups for three splits.
    """
    strata = np.asarray(strata)
    if np.unique(groups).size < 3:
        raise SplitError(
            f"found {np.unique(groups).size} independent groups of images (lesions, patients and "
            "duplicates), expected at least 3 to make train, val and test; add images of other "
            "patients"
        )
    split = np.full(len(strata), "train", dtype=object)
    rest = np.arange(len(strata))
    share = 1.0
    for name, fraction in (("test", test_fraction), ("val", val_fraction)):
        folds = max(2, round(share / fraction))
        if np.unique(groups[rest]).size < folds:
            raise SplitError(
                f"found {np.unique(groups[rest]).size} independent groups, expected at least "
                f"{folds} for {name}_fraction {fraction}; add images or raise the fraction"
            )
        largest = np.unique(strata[rest], return_counts=True)[1].max()
        if largest < folds:
            raise SplitError(
                f"found at most {largest} images of a class, expected at least {folds} for "
                f"{name}_fraction {fraction}; add images or raise the fraction"
            )
        folder = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
        _, chosen = next(folder.split(rest, strata[rest], groups[rest]))
        split[rest[chosen]] = name
        rest = np.delete(rest, chosen)
        share -= fraction
    return split
