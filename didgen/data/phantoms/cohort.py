"""A made-up clinic: patients with lesions, lesions with photographs; what a phantom is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

PHANTOM_CLASSES: tuple[str, ...] = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
"""The seven diagnosis codes of ISIC 2018 task 3, in the challenge's order."""

MINIMUM_SIZE = 32
"""Smallest side in pixels; below it no structure would be left to see."""


@dataclass(frozen=True)
class PhantomSpec:
    """The order for one photograph: who, which lesion, which shot.

    Photographs with the same ``patient_seed`` share skin tone and hairiness, those with the same
    ``lesion_seed`` (and label) share outline, colors and structure; ``photo_seed`` sets pose,
    light, hair strands and artifacts.
    """

    id: str
    label: str
    patient_id: str
    lesion_id: str
    patient_seed: int
    lesion_seed: int
    photo_seed: int


@dataclass(frozen=True)
class PhantomTruth:
    """What was drawn, in the words of a dermatologist.

    area_share: share of the image under the mask, 0..1.
    center: centroid (x, y) of the mask, 0..1 from the upper left corner.
    ita: individual typology angle of the photographed skin, degrees (light is high).
    hair: "none", "some" or "dense".
    artifacts: those drawn, out of "ruler", "ink", "gel bubbles", "dark corners".
    colors: lesion colors by visible share, the largest first.
    shape: "round", "oval" or "irregular", measured on the outline.
    asymmetric: whether outline or color layout differ across the main axes.
    """

    area_share: float
    center: tuple[float, float]
    ita: float
    hair: str
    artifacts: tuple[str, ...]
    colors: tuple[str, ...]
    shape: str
    asymmetric: bool


@dataclass(frozen=True)
class Phantom:
    """A drawn photograph: uint8 (size, size, 3) sRGB, bool (size, size) mask, label, truth."""

    image: np.ndarray
    mask: np.ndarray
    label: str
    truth: PhantomTruth


def check_class(label: str) -> None:
    """Raise ValueError unless the label is one of PHANTOM_CLASSES."""
    if label not in PHANTOM_CLASSES:
        raise ValueError(
            f"unknown class {label!r}: phantoms exist for {', '.join(PHANTOM_CLASSES)}; use one"
        )


# From the edges: beyond, of a small lesion little would be left to see.
MARGIN = 0.15


def cohort(
    n_images: int,
    classes: Sequence[str] = PHANTOM_CLASSES,
    *,
    seed: int,
    weights: Mapping[str, float] | None = None,
    prefix: str = "PH",
) -> list[PhantomSpec]:
    """Orders for n_images photographs with ids PH_0000000, PH_0000001, ...

    A patient has 1 to 4 lesions, a lesion 1 to 3 photographs of its one class. Class counts
    follow the weights (default: equal) by largest remainder; with at least as many images as
    classes of positive weight each of these has one. The same arguments give the same cohort.

    Raises: ValueError for n_images below 1, unknown or repeated classes, weights that do not
    cover exactly the classes, negative ones, or all zero.
    """
    if isinstance(n_images, bool) or not isinstance(n_images, int | np.integer) or n_images < 1:
        raise ValueError(f"n_images is {n_images!r}: expected a whole number of at least 1")
    counts = class_counts(int(n_images), classes, weights)
    rng = np.random.default_rng(np.random.SeedSequence([seed, 4]))
    lesions = [
        (label, photos) for label, count in counts.items() for photos in _split(rng, count, 3)
    ]
    lesions = [lesions[k] for k in rng.permutation(len(lesions))]
    specs: list[PhantomSpec] = []
    remaining = iter(enumerate(lesions))
    for p, n_lesions in enumerate(_split(rng, len(lesions), 4)):
        patient_seed = int(rng.integers(2**31))
        for _ in range(n_lesions):
            number, (label, photos) = next(remaining)
            lesion_seed = int(rng.integers(2**31))
            for photo_seed in rng.integers(2**31, size=photos):
                specs.append(
                    PhantomSpec(
                        id=f"{prefix}_{len(specs):07d}",
                        label=label,
                        patient_id=f"{prefix}_P{p:06d}",
                        lesion_id=f"{prefix}_L{number:06d}",
                        patient_seed=patient_seed,
                        lesion_seed=lesion_seed,
                        photo_seed=int(photo_seed),
                    )
                )
    return specs


def spread_centers(count: int, seed: int) -> list[tuple[float, float]]:
    """Points (x, y) in 0..1, equally many in each cell of a 3x3 grid, in random order."""
    rng = np.random.default_rng(seed)
    cells = rng.permutation(np.arange(count) % 9)
    corners = np.stack([cells % 3, cells // 3], axis=1) / 3
    points = np.clip(corners + rng.uniform(0, 1 / 3, (count, 2)), MARGIN, 1 - MARGIN)
    return [(float(x), float(y)) for x, y in points]


def class_counts(
    n_images: int, classes: Sequence[str], weights: Mapping[str, float] | None
) -> dict[str, int]:
    """Images of each class by largest remainder; none is left empty if there are enough."""
    for label in classes:
        check_class(label)
    if not classes or len(set(classes)) != len(classes):
        raise ValueError(f"classes are {list(classes)}: expected at least one, each once")
    shares = _shares(classes, weights)
    exact = shares * n_images
    counts = np.floor(exact).astype(int)
    order = np.argsort(-(exact - counts), kind="stable")
    counts[order[: n_images - counts.sum()]] += 1
    wanted = np.flatnonzero(shares > 0)
    if n_images >= len(wanted):
        for k in wanted[counts[wanted] == 0]:
            counts[np.argmax(counts)] -= 1
            counts[k] += 1
    return dict(zip(classes, counts.tolist(), strict=True))


def _shares(classes: Sequence[str], weights: Mapping[str, float] | None) -> np.ndarray:
    """Normalized weights (classes,)."""
    if weights is None:
        return np.full(len(classes), 1.0 / len(classes))
    if set(weights) != set(classes):
        raise ValueError(
            f"weights name {sorted(weights)}, the classes are {sorted(classes)}: give one weight "
            "for each class"
        )
    values = np.array([float(weights[label]) for label in classes])
    if not np.isfinite(values).all() or (values < 0).any() or values.sum() == 0:
        raise ValueError(f"weights are {dict(weights)}: expected numbers >= 0, not all zero")
    return values / values.sum()


def _split(rng: np.random.Generator, total: int, most: int) -> list[int]:
    """Random parts of 1..most that add up to total; small parts are likelier."""
    parts: list[int] = []
    chance = 1.0 / np.arange(1, most + 1)
    while total > 0:
        part = min(int(rng.choice(most, p=chance / chance.sum())) + 1, total)
        parts.append(part)
        total -= part
    return parts
