"""Warp: real lesions, bent and recoloured, blended onto the skin of other real images.

No network and no training: the baseline that a user would try first. A pair's mask is exact, since
the lesion and its mask are warped by one map; its label is the donor's. Blending after Perez,
Gangnet and Blake 2003 (Poisson image editing), inpainting after Telea 2004, both as in OpenCV.

Shapes: images uint8 (H, W, 3), masks bool (H, W), all of one size.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from didgen.data.images import read_image, read_mask
from didgen.data.manifest import GROUPS
from didgen.methods.conditions import Warp, warp_map
from didgen.methods.protocol import Request, Sample, derive_seed
from didgen.methods.shapes import is_whole
from didgen.runtime.files import read_json, sha256_file, write_json, write_text
from didgen.runtime.outputs import output_folder, paths_read
from didgen.settings.train import Config

LOGGER = logging.getLogger(__name__)
# The list of lesions in the method's folder.
LIST = "lesions.json"
# Skins that are tried for a lesion: of these it lies on the one whose own lesion it hides best.
SKINS = 8
# The blended patch reaches this far beyond the lesion, so that its own rim comes with it, and
# this far around a lesion its pigment may tint the skin; shares of the image's side.
MARGIN = 1 / 24


def warp_lesion(
    image: np.ndarray, mask: np.ndarray, rng: np.random.Generator, settings: Warp
) -> tuple[np.ndarray, np.ndarray]:
    """An image and its lesion's mask, turned, scaled, stretched, shifted and bent by one map."""
    grid, warped = warp_map(mask, rng, settings)
    rows, columns = grid.astype(np.float32)
    return cv2.remap(image, columns, rows, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT), warped


def with_margin(mask: np.ndarray) -> np.ndarray:
    """The lesion and the skin at its rim."""
    width = 2 * max(2, round(MARGIN * len(mask))) + 1
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    return cv2.dilate(mask.astype(np.uint8), disk).astype(bool)


def bare_skin(image: np.ndarray, lesion: np.ndarray) -> np.ndarray:
    """The image without its lesion, which is filled in from its rim."""
    return cv2.inpaint(image, with_margin(lesion).astype(np.uint8), 3, cv2.INPAINT_TELEA)


def blend(patch: np.ndarray, lesion: np.ndarray, skin: np.ndarray) -> np.ndarray:
    """The lesion of one image on the skin of another, its colours shifted with the skin's.

    The gradients of the lesion and its rim are kept, and the rim meets the skin, which may shift a
    little within the rectangle around them.
    """
    # OpenCV wants room around a patch that reaches the image's edge.
    edge = 2
    wide = [cv2.copyMakeBorder(part, *[edge] * 4, cv2.BORDER_REFLECT) for part in (patch, skin)]
    region = np.pad(with_margin(lesion), edge).astype(np.uint8) * 255
    x, y, width, height = cv2.boundingRect(region)
    blended = cv2.seamlessClone(*wide, region, (x + width // 2, y + height // 2), cv2.NORMAL_CLONE)
    return blended[edge:-edge, edge:-edge]


def train(data: pd.DataFrame, config: Config) -> None:
    """List the lesions and skins that pairs are made of: `lesions.json`. Nothing is fitted.

    A lesion that its image cuts off cannot be moved: only its skin is used.

    Raises: `ValueError` when a diagnosis has no whole lesion, or when there is no second lesion to
    take skin from.
    """
    data = data[data["mask"].notna()]
    masks = [read_mask(path) for path in data["mask"]]
    usable = [bool(mask.any() and not mask.all()) for mask in masks]
    if not all(usable):
        LOGGER.warning("%d masks left out: empty, or of a whole image", usable.count(False))
    data = data.assign(whole=[is_whole(mask) for mask in masks])[usable]
    movable = data[data["whole"]]
    without = sorted(set(data["label"]) - set(movable["label"]))
    if without or movable.empty:
        raise ValueError(
            f"{config.train}: found {len(data)} images with a mask, of which {len(movable)} show "
            f"the whole lesion; expected one of each diagnosis, but {without or 'all'} lack it. "
            "Leave these out (data.classes) or choose another method"
        )
    alone = [row["id"] for _, row in movable.iterrows() if _related(data, row).all()]
    if alone:
        raise ValueError(
            f"{config.train}: found no image of another patient than those of {alone[:5]}, "
            "expected one to take skin from; add images or choose another method"
        )
    LOGGER.info("%d lesions to move, %d skins to move them to", len(movable), len(data))
    for name in ("image", "mask"):
        data = data.assign(**{name: [os.path.relpath(path, config.out) for path in data[name]]})
    with output_folder(config.out, "train", paths_read(config)) as folder:
        kept = [
            "id",
            "image",
            "mask",
            "label",
            *(c for c in GROUPS if c in data),
            "sha256",
            "whole",
        ]
        write_json(folder / LIST, data[kept].to_dict("records"))
        write_text(folder / "config.json", config.model_dump_json(indent=2) + "\n")


def load(folder: Path, config: Any, device: str) -> "WarpSynthesizer":
    """The synthesizer of a list of lesions. Raises: `ValueError` when an image is missing."""
    try:
        images = pd.DataFrame(read_json(folder / LIST))
        for name in ("image", "mask"):
            images[name] = [folder / path for path in images[name]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder / LIST}: no list of lesions ({error}); train the method again"
        ) from error
    missing = [str(p) for p in (*images["image"], *images["mask"]) if not p.is_file()]
    if missing:
        raise ValueError(f"{folder / LIST}: {len(missing)} files are gone, such as {missing[0]}")
    return WarpSynthesizer(images, sha256_file(folder / LIST)[:16])


def _related(images: pd.DataFrame, one: pd.Series) -> pd.Series:
    """Which images show the same lesion or patient as one of them, itself included."""
    same = images["id"] == one["id"]
    for column in GROUPS:
        if one.get(column):
            same |= images[column] == one[column]
    return same


@dataclass(frozen=True)
class WarpSynthesizer:
    """Puts a lesion of the label asked for on the skin of another person.

    images: id, image and mask (paths), label, lesion_id and patient_id, and whole: whether the
    lesion can be moved.
    """

    images: pd.DataFrame
    checkpoint: str
    version: str = f"opencv-{cv2.__version__}"
    passes: int = 0
    memory_gb: float = 0.0

    def check(self, requests: Sequence[Request]) -> None:
        """Raises: `ValueError` for a label of which no lesion can be moved."""
        labels = set(self.images["label"][self.images["whole"]])
        if missing := sorted({request.label for request in requests} - labels):
            raise ValueError(f"no lesion of {missing} can be moved; expected one of each label")

    def synthesize(self, requests: Sequence[Request]) -> list[Sample]:
        """Make one pair per request, in order. A layout that a request names is not followed."""
        return [self._make(request) for request in requests]

    def _make(self, request: Request) -> Sample:
        rng = np.random.default_rng(derive_seed(request.seed, "warp"))
        donor = self._donor(request, rng)
        warped, lesion = warp_lesion(
            read_image(donor["image"]), read_mask(donor["mask"]), rng, Warp()
        )
        others = self.images[~_related(self.images, donor)]
        drawn = others.iloc[rng.permutation(len(others))[:SKINS]]
        masks = [read_mask(path) for path in drawn["mask"]]
        left = [int((with_margin(mask) & ~with_margin(lesion)).sum()) for mask in masks]
        best = int(np.argmin(left))
        host = drawn.iloc[best]
        image = blend(warped, lesion, bare_skin(read_image(host["image"]), masks[best]))
        scores = {"skin_filled": round(left[best] / lesion.size, 4)}
        parents = {donor["id"], host["id"]} - set(request.parent_ids)
        return Sample(request, image, lesion, scores, further_parents=tuple(sorted(parents)))

    def _donor(self, request: Request, rng: np.random.Generator) -> pd.Series:
        """The first parent if its lesion can be moved, else a drawn one of the same label."""
        able = self.images["whole"] & (self.images["label"] == request.label)
        own = able & self.images["id"].isin(request.parent_ids[:1])
        chosen = self.images[own if own.any() else able]
        return chosen.iloc[int(rng.integers(len(chosen)))]
