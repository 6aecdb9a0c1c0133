"""Precision, recall, density and coverage: fidelity and diversity from nearest neighbours.

Precision and recall: Kynkaanniemi et al. 2019; density and coverage: Naeem et al. 2020. An image's
ball reaches to the k-th nearest other image of its own set. Shapes: (N, D).
"""

import numpy as np
from scipy.spatial.distance import cdist


def neighbour_radii(features: np.ndarray, k: int) -> np.ndarray:
    """Distance of each image to its k-th nearest other one (N,).

    Raises: ValueError for no more than `k` images.
    """
    if len(features) <= k:
        raise ValueError(f"found {len(features)} images, expected more than k = {k}")
    # Column 0 is the image itself.
    return np.partition(cdist(features, features), k, axis=1)[:, k]


def precision_recall_density_coverage(
    real: np.ndarray, synthetic: np.ndarray, k: int = 5
) -> dict[str, float]:
    """The four shares; density alone may exceed 1.

    Precision: synthetic images within a real ball. Recall: real images within a synthetic ball.
    Density: real balls around a synthetic image, over k. Coverage: real balls with a synthetic
    image in them. Swapping the arguments swaps precision and recall.
    """
    within_real = cdist(real, synthetic) < neighbour_radii(real, k)[:, None]
    within_synthetic = cdist(real, synthetic) < neighbour_radii(synthetic, k)[None, :]
    return {
        "precision": float(within_real.any(0).mean()),
        "recall": float(within_synthetic.any(1).mean()),
        "density": float(within_real.sum(0).mean() / k),
        "coverage": float(within_real.any(1).mean()),
    }
