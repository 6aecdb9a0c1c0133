"""Fréchet distance between the Gaussians of two sets of feature vectors.

Legend: N images, D features. With InceptionV3's 2048 features it is the FID (Heusel et al. 2017);
in another space it is not. It is biased: two samples of one distribution have a distance above 0,
which grows as N falls towards D, so it is only compared at equal N.
"""

import numpy as np


class TooFewImages(ValueError):
    """A set too small for the number of features; the message says what would help."""


def check_enough(n_real: int, n_synthetic: int, dims: int) -> None:
    """Raises: `TooFewImages` unless both sets have more images than features.

    Below, a covariance matrix has no full rank and the distance mostly measures N.
    """
    if min(n_real, n_synthetic) <= dims:
        raise TooFewImages(
            f"found {n_real} real and {n_synthetic} synthetic images, expected more than {dims} of "
            "each, the number of features; make or load more, or rely on the kernel distance, "
            "which has no such bias, and on the distance in principal components"
        )


def frechet_distance(real: np.ndarray, synthetic: np.ndarray) -> float:
    """Squared distance of means + tr(C1 + C2 - 2 (C1 C2)^(1/2)). Shapes: (N1, D), (N2, D).

    The trace of the root is the sum of singular values of A1 A2^T where C = A^T A, which needs no
    matrix root and keeps its digits for covariances without full rank.
    Raises: ValueError for fewer than two vectors, other dimensions or values not finite.
    """
    for name, part in (("real", real), ("synthetic", synthetic)):
        if part.ndim != 2 or len(part) < 2 or not np.isfinite(part).all():
            raise ValueError(f"{name}: found features of shape {part.shape}, expected (N > 1, D)")
    if real.shape[1] != synthetic.shape[1]:
        raise ValueError(f"found {real.shape[1]} and {synthetic.shape[1]} features, expected equal")
    first, second = _root(real), _root(synthetic)
    shift = real.mean(0, dtype=np.float64) - synthetic.mean(0, dtype=np.float64)
    traces = (first**2).sum() + (second**2).sum()
    overlap = np.linalg.svd(first @ second.T, compute_uv=False).sum()
    return max(0.0, float(shift @ shift + traces - 2 * overlap))


def _root(features: np.ndarray) -> np.ndarray:
    """A with A^T A the covariance (N - 1): min(N, D) rows."""
    centered = features.astype(np.float64)
    centered = (centered - centered.mean(0)) / np.sqrt(len(features) - 1)
    if len(centered) <= centered.shape[1]:
        return centered
    return np.asarray(np.linalg.qr(centered, mode="r"))


def principal_axes(real: np.ndarray, count: int) -> np.ndarray:
    """The first `count` principal axes of real features (D, count), unit columns."""
    centered = real.astype(np.float64) - real.mean(0, dtype=np.float64)
    if count > min(centered.shape):
        raise ValueError(f"found features of shape {real.shape}, expected at least {count} of each")
    return np.linalg.svd(centered, full_matrices=False)[2][:count].T


def axes_for(n_images: int, largest: int = 64) -> int:
    """How many axes N images can support: the largest power of two up to N / 4, at most `largest`.

    Raises: `TooFewImages` below 16 images.
    """
    if n_images < 16:
        raise TooFewImages(f"found {n_images} images, expected at least 16 of each set")
    return min(largest, 2 ** int(np.log2(n_images / 4)))
