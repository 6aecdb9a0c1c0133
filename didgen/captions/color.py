"""Color words in CIELAB: a table of references, clustering, and the individual typology angle."""

import numpy as np

from didgen.captions.attributes import MAX_COLORS, Color

# sRGB references; a color takes the name of the nearest one by CIEDE2000. Several stand for one
# name because the six colors of the ABCD rule are ranges, not points (see docs/dermprompt.md).
REFERENCES: tuple[tuple[Color, tuple[int, int, int]], ...] = (
    ("white", (235, 232, 230)),
    ("white", (215, 205, 203)),
    ("black", (18, 14, 14)),
    ("black", (38, 28, 26)),
    ("dark brown", (58, 33, 24)),
    ("dark brown", (84, 52, 38)),
    ("dark brown", (108, 68, 50)),
    ("light brown", (138, 92, 66)),
    ("light brown", (160, 112, 82)),
    ("light brown", (153, 102, 60)),
    ("tan", (196, 154, 120)),
    ("tan", (214, 176, 142)),
    ("red", (178, 48, 44)),
    ("red", (140, 32, 34)),
    ("red", (186, 80, 70)),
    ("pink", (222, 160, 152)),
    ("pink", (208, 134, 130)),
    ("purple", (120, 58, 96)),
    ("purple", (92, 44, 76)),
    ("blue-gray", (92, 104, 124)),
    ("blue-gray", (70, 78, 96)),
    ("blue-gray", (128, 132, 146)),
    ("blue-gray", (104, 98, 108)),
    ("yellow", (226, 192, 104)),
    ("yellow", (200, 160, 70)),
)
NAMES: tuple[Color, ...] = tuple(name for name, _ in REFERENCES)
CLUSTERS = 5
MAX_PIXELS = 1500
# A second or third color is named from this share of the area on.
NAMED_FROM = 0.12

_LINEAR = (np.arange(256) / 255.0).astype(np.float32)
_LINEAR = np.where(_LINEAR <= 0.04045, _LINEAR / 12.92, ((_LINEAR + 0.055) / 1.055) ** 2.4)
# IEC 61966-2-1 matrix, rows divided by the D65 white point of the 2 degree observer.
_TO_XYZ = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
) / np.array([[0.95047], [1.0], [1.08883]])


def srgb_to_lab(pixels: np.ndarray) -> np.ndarray:
    """CIELAB (D65) of sRGB pixels. Shapes: (..., 3) uint8 -> (..., 3) float32, L in [0, 100]."""
    if pixels.dtype != np.uint8 or pixels.shape[-1] != 3:
        raise ValueError(
            f"expected uint8 sRGB pixels (..., 3), found {pixels.dtype} of shape {pixels.shape}"
        )
    xyz = _LINEAR[pixels].astype(np.float32) @ _TO_XYZ.T.astype(np.float32)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16.0 / 116.0)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], axis=-1)


_REFERENCES_LAB = srgb_to_lab(np.array([rgb for _, rgb in REFERENCES], dtype=np.uint8))


def name_colors(lab: np.ndarray) -> list[Color]:
    """The nearest name by CIEDE2000 for each color. Shape: (N, 3) CIELAB."""
    from skimage.color import deltaE_ciede2000

    distances = deltaE_ciede2000(lab[:, None, :], _REFERENCES_LAB[None])
    return [NAMES[index] for index in distances.argmin(axis=1)]


def cluster(lab: np.ndarray, k: int = CLUSTERS, steps: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """k-means in CIELAB, started at quantiles of lightness, so that it has no randomness.

    Shapes: (N, 3) -> centers (<=k, 3) and their shares (<=k,), which sum to 1, largest first.
    """
    lab = np.asarray(lab, dtype=np.float32)
    order = np.argsort(lab[:, 0], kind="stable")
    starts = ((np.arange(k) + 0.5) / k * len(lab)).astype(int)
    centers = lab[order[starts]]
    for _ in range(steps):
        nearest = ((lab[:, None] - centers[None]) ** 2).sum(-1).argmin(1)
        counts = np.bincount(nearest, minlength=k)
        sums = np.stack(
            [np.bincount(nearest, weights=lab[:, axis], minlength=k) for axis in range(3)], axis=1
        )
        moved = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centers)
        if np.abs(moved - centers).max() < 0.1:
            break
        centers = moved.astype(np.float32)
    counts = np.bincount(((lab[:, None] - centers[None]) ** 2).sum(-1).argmin(1), minlength=k)
    kept = [index for index in np.argsort(-counts, kind="stable") if counts[index] > 0]
    return centers[kept], counts[kept] / len(lab)


def color_words(lab: np.ndarray) -> tuple[Color, ...]:
    """Up to three color names of a region, by share. Shape: (N, 3) CIELAB; empty gives ()."""
    if len(lab) == 0:
        return ()
    lab = lab[:: max(1, len(lab) // MAX_PIXELS)]
    centers, shares = cluster(lab)
    totals: dict[Color, float] = {}
    for name, share in zip(name_colors(centers), shares, strict=True):
        totals[name] = totals.get(name, 0.0) + float(share)
    ranked = sorted(totals, key=lambda name: -totals[name])
    return tuple(ranked[:1] + [n for n in ranked[1:MAX_COLORS] if totals[n] >= NAMED_FROM])


def typology_angle(lab: np.ndarray) -> float:
    """Individual typology angle in degrees, ITA = arctan((L - 50) / b), of the median color.

    Shape: (N, 3) CIELAB. A b below 0.1 (a bluish white balance) counts as 0.1: the angle stays
    within (-90, 90) and keeps the sign of L - 50.
    """
    if len(lab) == 0:
        raise ValueError("no pixels to take the typology angle from")
    lightness, b = float(np.median(lab[:, 0])), float(np.median(lab[:, 2]))
    return float(np.degrees(np.arctan2(lightness - 50.0, max(b, 0.1))))
