"""Kernel distance between two sets of feature vectors: squared MMD, without bias.

With InceptionV3's features it is the KID (Binkowski et al. 2018). Shapes: (N, D).
"""

import numpy as np


def polynomial_kernel(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(x . y / D + 1)^3 of all pairs, (N1, N2), in double precision."""
    return (first.astype(np.float64) @ second.astype(np.float64).T / first.shape[1] + 1) ** 3


def kernel_distance(real: np.ndarray, synthetic: np.ndarray) -> float:
    """Unbiased estimate of the squared MMD from all pairs; may be slightly below 0.

    Raises: ValueError for fewer than two vectors in a set.
    """
    if min(len(real), len(synthetic)) < 2:
        raise ValueError(f"found {len(real)} and {len(synthetic)} images, expected two of each")
    within = [_mean_of_others(polynomial_kernel(part, part)) for part in (real, synthetic)]
    return float(sum(within) - 2 * polynomial_kernel(real, synthetic).mean())


def _mean_of_others(kernel: np.ndarray) -> float:
    """Mean over the pairs of two different images."""
    n = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (n * (n - 1)))
