"""What a phantom is: the order for one photograph, and the photograph with its truth."""

from __future__ import annotations

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
