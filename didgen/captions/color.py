"""Color words in CIELAB: a table of references, clustering, and the individual typology angle."""

import warnings

import numpy as np
from scipy.cluster.vq import kmeans2, vq
from skimage.color import deltaE_ciede2000, rgb2lab

from didgen.captions.attributes import MAX_COLORS, Color

# CIELAB (D65) references; a color takes the name of the nearest one by CIEDE2000. Several stand for
# one name because names are ranges, not points. The six words of the ABCD rule and four more; the
# values are this project's own (docs/dermprompt.md says how they were chosen).
REFERENCES: tuple[tuple[Color, tuple[float, float, float]], ...] = (
    ("light brown", (48, 20, 24)),
    ("light brown", (54, 20, 17)),
    ("light brown", (48, 19, 22)),
    ("tan", (55, 12, 27)),
    ("tan", (60, 12, 23)),
    ("tan", (66, 11, 25)),
    ("tan", (76, 9, 21)),
    ("dark brown", (30, 16, 17)),
    ("dark brown", (39, 18, 19)),
    ("dark brown", (22, 12, 12)),
    ("dark brown", (32, 28, 32)),
    ("black", (8, 1, 1)),
    ("black", (15, 4, 4)),
    ("red", (45, 44, 22)),
    ("red", (53, 36, 17)),
    ("red", (36, 40, 22)),
    ("red", (58, 30, 20)),
    ("pink", (65, 28, 10)),
    ("pink", (70, 20, 12)),
    ("pink", (60, 26, 9)),
    ("purple", (33, 30, -12)),
    ("purple", (40, 25, -8)),
    ("blue-gray", (46, 0, -12)),
    ("blue-gray", (45, 5, -2)),
    ("blue-gray", (60, 2, -5)),
    ("blue-gray", (28, 1, -6)),
    ("white", (88, 4, 3)),
    ("white", (77, 10, 8)),
    ("yellow", (77, 9, 36)),
    ("yellow", (66, 10, 40)),
)
NAMES: tuple[Color, ...] = tuple(name for name, _ in REFERENCES)
CLUSTERS = 4
MAX_PIXELS = 1000
# A second or third color is named from this share of the area on.
NAMED_FROM = 0.12
# Pigment is judged against its surroundings: on a tone darker than L = 70 lightness is raised by
# (70 / L) to this power before it is named.
REFERENCE_TONE = 70.0
TONE_POWER = 0.6
# Under a bluish light brown looks gray: where the surroundings have b below NEUTRAL_B, the region's
# b is raised by the lack, by MAX_SHIFT at most.
NEUTRAL_B = 10.0
MAX_SHIFT = 8.0
# Below this b the white balance is too blue for a typology angle to mean anything.
MIN_TONE_B = 3.0


def srgb_to_lab(pixels: np.ndarray) -> np.ndarray:
    """CIELAB (D65) of sRGB pixels. Shapes: (..., 3) uint8 -> (..., 3) float32, L in [0, 100]."""
    if pixels.dtype != np.uint8 or pixels.shape[-1] != 3:
        raise ValueError(
            f"expected uint8 sRGB pixels (..., 3), found {pixels.dtype} of shape {pixels.shape}"
        )
    return rgb2lab(pixels / np.float32(255))


_REFERENCES_LAB = np.array([lab for _, lab in REFERENCES], dtype=np.float32)


def name_colors(lab: np.ndarray) -> list[Color]:
    """The nearest name by CIEDE2000 for each color. Shape: (N, 3) CIELAB."""
    distances = deltaE_ciede2000(lab[:, None, :], _REFERENCES_LAB[None])
    return [NAMES[index] for index in distances.argmin(axis=1)]


def cluster(lab: np.ndarray, k: int = CLUSTERS, rounds: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """k-means in CIELAB, started at quantiles of lightness, so that it has no randomness.

    Shapes: (N, 3) -> centers (<=k, 3) and their shares (<=k,), which sum to 1, largest first.
    """
    order = np.argsort(lab[:, 0], kind="stable")
    centers = lab[order[((np.arange(k) + 0.5) / k * len(lab)).astype(int)]]
    with warnings.catch_warnings():
        # Of a flat region most clusters are empty.
        warnings.filterwarnings("ignore", "One of the clusters is empty")
        for _ in range(rounds):
            moved, _ = kmeans2(lab, centers, iter=1, minit="matrix")
            if np.abs(moved - centers).max() < 0.1:
                break
            centers = moved
    nearest, _ = vq(lab, centers)
    counts = np.bincount(nearest, minlength=k)
    kept = [index for index in np.argsort(-counts, kind="stable") if counts[index] > 0]
    return centers[kept], counts[kept] / len(lab)


def color_words(
    lab: np.ndarray, tone: float = REFERENCE_TONE, tone_b: float = NEUTRAL_B
) -> tuple[Color, ...]:
    """Up to three color names of a region, by share, as seen on its surroundings.

    Shape: (N, 3) CIELAB; an empty region gives (). Range: `tone` (L of the surroundings) in
    [0, 100], `tone_b` their b.
    """
    if len(lab) == 0:
        return ()
    lab = lab[:: max(1, len(lab) // MAX_PIXELS)].copy()
    lab[:, 0] *= (REFERENCE_TONE / float(np.clip(tone, 30.0, REFERENCE_TONE))) ** TONE_POWER
    lab[:, 2] += np.clip(NEUTRAL_B - tone_b, 0.0, MAX_SHIFT)
    centers, shares = cluster(lab)
    totals: dict[Color, float] = {}
    for name, share in zip(name_colors(centers), shares, strict=True):
        totals[name] = totals.get(name, 0.0) + float(share)
    ranked = sorted(totals, key=lambda name: -totals[name])
    return tuple(ranked[:1] + [n for n in ranked[1:MAX_COLORS] if totals[n] >= NAMED_FROM])


def typology_angle(lightness: float, b: float) -> float:
    """Individual typology angle in degrees, ITA = arctan((L - 50) / b) (Chardin et al. 1991).

    A b below MIN_TONE_B counts as MIN_TONE_B: the angle stays within (-90, 90) and keeps the sign
    of L - 50.
    """
    return float(np.degrees(np.arctan2(lightness - 50.0, max(b, MIN_TONE_B))))
