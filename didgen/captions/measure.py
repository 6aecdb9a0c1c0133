"""The measuring captioner: attributes computed from pixels and mask, without any model.

An image without a mask is segmented first, by color.
"""

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.filters import threshold_otsu

from didgen.captions import artifacts
from didgen.captions.attributes import (
    Artifact,
    Attributes,
    Hair,
    SkinTone,
    skin_tone_word,
)
from didgen.captions.color import MIN_TONE_B, color_words, srgb_to_lab, typology_angle
from didgen.captions.morphology import binary_closing, binary_opening, grow
from didgen.captions.outline import Layout, border_width, border_word
from didgen.data.images import read_image, read_mask
from didgen.data.manifest import read_manifest, resolve
from didgen.runtime.progress import track

MaskSource = Literal["given", "segmented", "whole image"]
WORKING_SIDE = 256
# Segmentation: a component is plausible within these limits; outside them the image has no mask.
MIN_SHARE, MAX_SHARE = 0.004, 0.85
MIN_CONTRAST = 4.0  # CIELAB units between the component and its surroundings
# Otsu's threshold lies too far inside where a dark center stands out.
THRESHOLD_FACTOR = 0.8
MAX_VOTE = 15.0
MAX_FRAME_SHARE = 0.5  # of the image's frame that the component may touch
# Fewer images than this are done sooner in one process than a pool takes to start.
POOL_FROM = 100


class MeasurementError(ValueError):
    """An image or a mask that cannot be measured."""


@dataclass(frozen=True)
class Measurement:
    """Attributes of one image, where its mask came from, and the numbers behind the words.

    `numbers`: ita (degrees), lightness and b (of the surroundings), hair_share, ink_share,
    corner_share; with a mask also area_share, row, column (centroid, 0..1), solidity, axis_ratio,
    asymmetry, border_width (share of the shorter side) and region_lightness (mean L of the mask).
    """

    attributes: Attributes
    mask_source: MaskSource
    numbers: dict[str, float]


@dataclass(frozen=True)
class Surroundings:
    """What lies around the mask: tone, hair lines (H, W) bool of the whole image, artifacts."""

    skin_tone: SkinTone | None
    hair: Hair
    artifacts: tuple[Artifact, ...]
    corners: np.ndarray
    hair_lines: np.ndarray
    numbers: dict[str, float]


def measure(
    image: np.ndarray, mask: np.ndarray | None = None, label: str | None = None
) -> Measurement:
    """Measure one image.

    Shapes: image (H, W, 3) uint8 sRGB, mask (H, W) bool or None; without a mask the image is
    segmented, and if nothing plausible is found only tone, hair and artifacts are stated.
    Raises: MeasurementError for another type, shape or an empty mask.
    """
    _check(image, mask)
    image, mask = _reduce(image, mask)
    lab = srgb_to_lab(image)
    corners = artifacts.dark_corners(lab)
    source: MaskSource = "given"
    if mask is None:
        mask = segment(lab, corners)
        source = "whole image" if mask is None else "segmented"
    around = _surroundings(lab, corners, mask)
    numbers = dict(around.numbers)
    words: dict = {
        "diagnosis": label or None,
        "skin_tone": around.skin_tone,
        "hair": around.hair,
        "artifacts": around.artifacts,
    }
    if mask is not None:
        words |= _region(lab, mask, around, numbers)
    return Measurement(Attributes(**words), source, numbers)


def _check(image: np.ndarray, mask: np.ndarray | None) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise MeasurementError(
            f"found an image of type {image.dtype} and shape {image.shape}, expected uint8 RGB "
            "(H, W, 3); convert it first"
        )
    if min(image.shape[:2]) < 32:
        raise MeasurementError(
            f"found an image of shape {image.shape}, expected at least 32x32 pixels; below that "
            "nothing can be measured, leave it out"
        )
    if mask is None:
        return
    if mask.dtype != bool or mask.shape != image.shape[:2]:
        raise MeasurementError(
            f"found a mask of type {mask.dtype} and shape {mask.shape}, expected bool of shape "
            f"{image.shape[:2]} as its image; resize it with nearest neighbour"
        )
    if not mask.any():
        raise MeasurementError(
            "found an empty mask, expected at least one marked pixel; pass None to have the image "
            "segmented"
        )


def _reduce(image: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Shrink to a longer side of at most WORKING_SIDE pixels."""
    height, width = image.shape[:2]
    scale = WORKING_SIDE / max(height, width)
    if scale >= 1:
        return image, mask
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
    if mask is not None:
        gray = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)
        covered = np.asarray(gray)
        # A mask too small for half a pixel keeps the pixel it covers most.
        mask = covered >= min(128, int(covered.max()))
    return image, mask


def _surroundings(lab: np.ndarray, corners: np.ndarray, mask: np.ndarray | None) -> Surroundings:
    """Tone, hair and artifacts; pixels near the mask and the dark corners are left out."""
    side = min(corners.shape)
    far = ~grow(corners, 0.03 * side) if corners.any() else ~corners
    outside = far if mask is None else far & ~grow(mask, 0.02 * side)
    marks = artifacts.ink(lab, outside)
    clear = outside & ~(grow(marks, 0.02 * side) if marks.any() else marks)
    black_hat = artifacts.thin_dark(lab)
    ruler = artifacts.ruler_marks(black_hat, clear)
    lines = artifacts.hair_lines(far & (black_hat > artifacts.THIN_CONTRAST))
    if ruler is not None:
        lines &= ~ruler
    hair_share = float((lines & clear).sum() / max(1, clear.sum()))
    bare = clear & (black_hat < artifacts.THIN_CONTRAST)
    # A mask that fills the field leaves no surroundings: take the brightest tenth of the image.
    if bare.mean() < 0.005:
        bare = (lab[..., 0] >= np.percentile(lab[..., 0], 90)) & far
    if not bare.any():
        bare = np.ones_like(corners)
    lightness, b = float(np.median(lab[bare, 0])), float(np.median(lab[bare, 2]))
    ita = typology_angle(lightness, b)
    present: dict[Artifact, bool] = {
        "ruler": ruler is not None,
        "ink": float(marks.mean()) >= artifacts.INK_FROM,
        "gel bubbles": artifacts.has_bubbles(lab, clear),
        "dark corners": float(corners.mean()) >= artifacts.CORNERS_FROM,
    }
    return Surroundings(
        skin_tone=skin_tone_word(ita) if b >= MIN_TONE_B else None,
        hair=artifacts.hair_word(hair_share),
        artifacts=tuple(name for name, seen in present.items() if seen),
        corners=corners,
        hair_lines=lines,
        numbers={
            "ita": ita,
            "lightness": lightness,
            "b": b,
            "hair_share": hair_share,
            "ink_share": float(marks.mean()),
            "corner_share": float(corners.mean()),
        },
    )


def _region(
    lab: np.ndarray, mask: np.ndarray, around: Surroundings, numbers: dict[str, float]
) -> dict:
    """Layout, border and colors of the masked region as words; adds to `numbers`."""
    layout = Layout.of(mask)
    width = border_width(lab, mask, around.corners)
    numbers |= {
        "area_share": layout.share,
        "row": layout.row,
        "column": layout.column,
        "solidity": layout.outline.solidity,
        "axis_ratio": layout.outline.axis_ratio,
        "asymmetry": layout.outline.asymmetry,
        "border_width": width,
    }
    colored = mask & ~around.corners
    # Where there is hair, its lines over the region are no color of the region.
    if around.hair != "none" and (colored & ~around.hair_lines).sum() >= 0.3 * mask.sum():
        colored &= ~around.hair_lines
    region = lab[colored if colored.any() else mask]
    numbers["region_lightness"] = float(region[:, 0].mean())
    return {
        **layout.words(),
        "border": border_word(width),
        "colors": color_words(region, numbers["lightness"], numbers["b"]),
    }


def segment_image(image: np.ndarray) -> np.ndarray | None:
    """The lesion's mask, or None where nothing is plausible.

    Shapes: uint8 (H, W, 3) -> bool (H, W).
    """
    small, _ = _reduce(image, None)
    lab = srgb_to_lab(small)
    mask = segment(lab, artifacts.dark_corners(lab))
    if mask is None:
        return None
    size = (image.shape[1], image.shape[0])
    return np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))


def segment(lab: np.ndarray, ignore: np.ndarray) -> np.ndarray | None:
    """The most central plausible component that differs from the surroundings, or None.

    Shapes: lab (H, W, 3) CIELAB, ignore (H, W) bool (dark corners) -> (H, W) bool.
    A share of Otsu's threshold on the smoothed color distance to the frame's median color.
    """
    height, width = ignore.shape
    side = min(height, width)
    # Hair and other thin dark lines are painted over.
    thin = artifacts.thin_dark(lab) > artifacts.THIN_CONTRAST
    smooth = _smooth_without(lab, thin & ~ignore, 0.016 * side)
    valid = ~ignore
    frame = valid & ~_inner(height, width, 0.12)
    if frame.sum() < 0.01 * frame.size or valid.sum() < 0.2 * valid.size:
        return None
    background = np.median(smooth[frame], axis=0)
    distance = np.linalg.norm(smooth - background, axis=-1)
    # What is brighter than the surroundings is glare or a bubble more often than a lesion.
    distance[smooth[..., 0] > background[0] + 8] = 0
    distance[ignore] = 0
    mask = distance > THRESHOLD_FACTOR * threshold_otsu(distance[valid])
    radius = max(1, round(0.015 * side))
    mask = binary_opening(mask, radius)
    mask = binary_closing(np.pad(mask, 2 * radius), 2 * radius)
    mask = mask[2 * radius : -2 * radius, 2 * radius : -2 * radius]
    return _pick(ndimage.binary_fill_holes(mask), distance, valid)


def _smooth_without(lab: np.ndarray, left_out: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian mean of the pixels that are not left out."""
    weight = np.where(left_out, np.float32(0.02), np.float32(1.0))
    total = ndimage.gaussian_filter(lab * weight[..., None], (sigma, sigma, 0))
    return total / ndimage.gaussian_filter(weight, sigma)[..., None]


def _inner(height: int, width: int, margin: float) -> np.ndarray:
    inner = np.zeros((height, width), dtype=bool)
    top, left = max(1, round(margin * height)), max(1, round(margin * width))
    inner[top : height - top, left : width - left] = True
    return inner


def _pick(candidates: np.ndarray, distance: np.ndarray, valid: np.ndarray) -> np.ndarray | None:
    """The plausible component with the largest area weighted by how central it is."""
    labels, count = ndimage.label(candidates)
    height, width = candidates.shape
    outer = ~_inner(height, width, 0.0)
    rows = (np.arange(height) + 0.5) / height - 0.5
    columns = (np.arange(width) + 0.5) / width - 0.5
    weight = np.exp(-(rows[:, None] ** 2 + columns[None] ** 2) / (2 * 0.2**2))
    best, best_score = None, 0.0
    for index in range(1, count + 1):
        component = labels == index
        share = component.mean()
        if not MIN_SHARE <= share <= MAX_SHARE:
            continue
        if (component & outer).sum() > MAX_FRAME_SHARE * outer.sum():
            continue
        outside = valid & ~candidates
        if not outside.any():
            continue
        if distance[component].mean() - distance[outside].mean() < MIN_CONTRAST:
            continue
        # Capped: a bright sticker at the edge must not outweigh a faint spot in the middle.
        score = float((weight * np.minimum(distance, MAX_VOTE))[component].sum())
        if score > best_score:
            best, best_score = component, score
    return best


class ImageRow(NamedTuple):
    """An image of a manifest; the label becomes the diagnosis."""

    id: str
    image: Path
    mask: Path | None = None
    label: str | None = None


def image_rows(manifest: Path) -> list[ImageRow]:
    """The images of a manifest, in its order. Raises: `ManifestError`."""
    frame = read_manifest(manifest)
    images, masks = resolve(manifest, frame["image"]), resolve(manifest, frame["mask"])
    return [
        ImageRow(name, image, mask, label or None)
        for name, image, mask, label in zip(frame["id"], images, masks, frame["label"], strict=True)
        if image is not None
    ]


def measure_files(rows: Sequence[ImageRow], workers: int | None) -> list[dict[str, str]]:
    """One row per image, in order: id, mask_source and every attribute.

    workers: processes; None: one for each core. Raises: as `measure_file`; `ChildProcessError`
    when a process is killed.
    """
    workers = min(workers or len(os.sched_getaffinity(0)), 1 + len(rows) // POOL_FROM)
    return list(track(_measured(rows, workers), total=len(rows), label="measured"))


def _measured(rows: Sequence[ImageRow], workers: int) -> Iterator[dict[str, str]]:
    if workers == 1:
        yield from map(measure_file, rows)
        return
    # Spawned: a forked child of a process with threads may lock up.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        try:
            yield from pool.map(measure_file, rows, chunksize=8)
        except BrokenProcessPool:
            raise ChildProcessError(
                f"a process that measures images was killed; most often the memory is used up: "
                f"give the job more, or use fewer than {workers} workers (caption.workers)"
            ) from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def measure_file(row: ImageRow) -> dict[str, str]:
    """The measured row of one image: id, mask_source and every attribute.

    Raises: `ImageError`, `MeasurementError` naming the image.
    """
    image = read_image(row.image)
    mask = read_mask(row.mask, image.shape[:2]) if row.mask is not None else None
    try:
        measured = measure(image, mask, row.label)
    except MeasurementError as error:
        raise MeasurementError(f"{row.image}: {error}") from error
    return {"id": row.id, "mask_source": measured.mask_source, **measured.attributes.to_row()}
