"""Images, labels and masks of a manifest, decoded once and kept as bytes where they fit."""

import logging
import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch

from didgen.data.classes import CLASSES
from didgen.data.images import fit_image, fit_mask, read_image, read_mask
from didgen.data.leaks import ACCEPTED
from didgen.data.manifest import read_manifest, resolve

LOGGER = logging.getLogger(__name__)
GIGABYTE = 1e9
WORKERS = 4
Batch = tuple[torch.Tensor, torch.Tensor]


class DatasetError(ValueError):
    """Images that cannot serve a task; the message says which and what to do."""


class PixelReader:
    """An array of equally sized images, in memory or read from files on demand.

    `read(indices)` gives uint8 of shape (n, H, W, 3), or (n, H, W) in {0, 1} for masks.
    Raises: `DatasetError` for an image of another size than the first.
    """

    def __init__(self, paths: Sequence[Path], decode: Callable[[Path], np.ndarray]) -> None:
        self.paths = list(paths)
        self._decode = decode
        self._kept: np.ndarray | None = None
        self.shape = decode(self.paths[0]).shape

    @property
    def nbytes(self) -> int:
        """Bytes that all images take when decoded."""
        return len(self.paths) * int(np.prod(self.shape))

    @property
    def kept(self) -> bool:
        """Whether the images are decoded already."""
        return self._kept is not None

    def keep(self) -> None:
        """Decode every image now and keep the bytes."""
        self._kept = self.read(np.arange(len(self.paths)))

    def read(self, indices: np.ndarray) -> np.ndarray:
        """The images at `indices`, in that order."""
        if self._kept is not None:
            return self._kept[indices]
        pixels = np.empty((len(indices), *self.shape), np.uint8)

        def fill(place: int) -> None:
            pixels[place] = self._checked(self.paths[indices[place]])

        # Pillow releases the interpreter lock while it decodes.
        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(fill, range(len(indices))))
        return pixels

    def _checked(self, path: Path) -> np.ndarray:
        pixels = self._decode(path)
        if pixels.shape != self.shape:
            raise DatasetError(
                f"{path}: found {pixels.shape[1]}x{pixels.shape[0]} px, expected "
                f"{self.shape[1]}x{self.shape[0]} as the first image; set image_size"
            )
        return pixels


@dataclass(frozen=True)
class ImageSet:
    """Images with what a task asks of them: class indices (N,) or masks, never both."""

    frame: pd.DataFrame
    images: PixelReader
    labels: np.ndarray | None = None
    masks: PixelReader | None = None

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def ids(self) -> list[str]:
        """The images' ids, in order."""
        return self.frame["id"].tolist()

    @property
    def in_memory(self) -> bool:
        """Whether every image and mask is decoded already."""
        return self.images.kept and (self.masks is None or self.masks.kept)

    @property
    def image_size(self) -> int:
        """The longer side in px."""
        return max(self.images.shape[:2])

    def batch(self, indices: np.ndarray) -> Batch:
        """uint8 images (B, 3, H, W) and int64 labels (B,) or uint8 masks (B, 1, H, W).

        Images keep the channels-last layout of decoded files: on a processor, convolutions run
        about 1.4 times as fast on it.
        """
        images = torch.from_numpy(self.images.read(indices)).permute(0, 3, 1, 2)
        return images, self.targets(indices)

    def targets(self, indices: np.ndarray) -> torch.Tensor:
        """int64 labels (B,) or uint8 masks (B, 1, H, W), without their images."""
        if self.masks is not None:
            return torch.from_numpy(self.masks.read(indices))[:, None]
        return torch.from_numpy(self.true_classes()[indices])

    def true_classes(self) -> np.ndarray:
        """The class index of each image (N,); of a set for classification."""
        assert self.labels is not None
        return self.labels

    def true_masks(self) -> np.ndarray:
        """Every mask, bool (N, H, W); of a set for segmentation."""
        assert self.masks is not None
        return self.masks.read(np.arange(len(self))).astype(bool)

    def identity(self) -> pd.DataFrame:
        """Columns id, lesion_id, patient_id, cluster; an unknown lesion or patient is its own."""
        frame = self.frame[["id", "lesion_id", "patient_id"]].reset_index(drop=True)
        frame["cluster"] = self.frame["cluster"].tolist() if "cluster" in self.frame else ""
        frame["lesion_id"] = frame["lesion_id"].where(frame["lesion_id"] != "", frame["id"])
        known = frame["patient_id"] != ""
        frame["patient_id"] = frame["patient_id"].where(known, frame["lesion_id"])
        return frame


def usable_rows(manifest: Path, need: Literal["label", "mask"]) -> tuple[pd.DataFrame, int]:
    """The rows that have what the task needs, with absolute paths, and how many have not.

    A pair teaches segmentation alone. One made for a condition mask has no label of its own: it
    carries that of the training image whose mask it follows, which nobody has seen in it.
    Raises: `DatasetError` when no row is left.
    """
    frame = _resolved(manifest)
    pairs = _pairs(frame)
    keep = (frame["label"] != "") & ~pairs if need == "label" else frame["mask"].notna()
    left_out = int((~keep).sum())
    said = f"{int(pairs.sum())} pairs count as such" if need == "label" and pairs.any() else ""
    if left_out:
        LOGGER.info(
            "%s: %d of %d images have no %s%s", manifest, left_out, len(frame), need,
            said and f" of their own; {said}",
        )  # fmt: skip
    if not keep.any():
        raise DatasetError(
            f"{manifest}: no image has a {need}{said and f' of its own ({said})'}; give at least "
            f"one row a {need}"
        )
    return frame[keep].reset_index(drop=True), left_out


def rows_without(manifest: Path, need: Literal["label", "mask"]) -> pd.DataFrame:
    """The real images that lack what the task needs, with absolute paths; maybe none."""
    frame = _resolved(manifest)
    lacking = frame["label"] == "" if need == "label" else frame["mask"].isna()
    return frame[lacking & ~_pairs(frame)].reset_index(drop=True)


def _resolved(manifest: Path) -> pd.DataFrame:
    frame = read_manifest(manifest)
    for column in ("image", "mask"):
        frame[column] = resolve(manifest, frame[column])
    return frame


def _pairs(frame: pd.DataFrame) -> pd.Series:
    return (_column(frame, "condition") != "") | (_column(frame, "set") == "pairs")


def class_codes(frames: Sequence[pd.DataFrame]) -> list[str]:
    """The diagnoses that occur in any of the tables, in the order of `CLASSES`."""
    present = {code for frame in frames for code in frame["label"]}
    return [code for code in CLASSES if code in present]


def of_classes(
    frame: pd.DataFrame, classes: Sequence[str], manifest: Path, why: str, advice: str
) -> pd.DataFrame:
    """The rows whose label is one of the classes; the log counts the others and says why.

    Raises: `DatasetError` with the advice when no row is left.
    """
    known = frame["label"].isin(classes)
    if not known.all():
        LOGGER.info("%s: %d of %d images left out: %s", manifest, (~known).sum(), len(known), why)
    if not known.any():
        raise DatasetError(
            f"{manifest}: none of {len(known)} images has a class of the real ones, "
            f"{list(classes)}; {advice}"
        )
    return frame[known].reset_index(drop=True)


def check_apart(
    train: pd.DataFrame, held_out: dict[str, pd.DataFrame], synthetic: pd.DataFrame | None
) -> None:
    """Refuse leaks: an id, lesion or patient in two splits, a synthetic child of a held-out image.

    Nor may a synthetic set share an id, a lesion, a patient or a file with held-out images: one
    from elsewhere may hold copies of them.

    Lesions and patients whose images say `accepted` in the column `leak` were left in two splits on
    purpose when the data were prepared: a warning counts them.
    Raises: `DatasetError` naming the first offenders.
    """
    named = {"train": train, **held_out}
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        for column in ("id", "lesion_id", "patient_id"):
            both = (set(named[first][column]) & set(named[second][column])) - {""}
            accepted = both & (_accepted(named[first], column) | _accepted(named[second], column))
            if column != "id" and accepted:
                what = f"{column} in both {first} and {second}"
                LOGGER.warning("%s: %d, accepted by data.on_leak: warn", what, len(accepted))
                both -= accepted
            _refuse(both, f"{column} in both {first} and {second}", "split by patient and lesion")
    if synthetic is None:
        return
    held = set(synthetic.loc[_column(synthetic, "split").isin(("val", "test")), "id"])
    _refuse(held, "synthetic images whose split is val or test", "say train, or leave them out")
    _refuse(set(synthetic["id"]) & set(train["id"]), "id both real and synthetic", "rename them")
    # Separated by any mark; brackets and quotes around a list hide no parent.
    marks = (r"[;,\s]+", r"[^\w.-]+")
    parents = {
        p
        for cell in _column(synthetic, "parent_ids")
        for mark in marks
        for p in re.split(mark, cell)
    }
    for split, frame in held_out.items():
        for column in ("id", "lesion_id", "patient_id", "sha256"):
            both = (set(_column(synthetic, column)) & set(_column(frame, column))) - {""}
            fault = f"{column} both in {split} and in the synthetic set"
            _refuse(both, fault, "leave these images out of the set")
        leaked = (parents & set(frame["id"])) - {""}
        _refuse(leaked, f"synthetic images made from {split} images", "make them from train")
    unknown = (_column(synthetic, "parent_ids") == "") & (_column(synthetic, "checkpoint") == "")
    if unknown.any():
        LOGGER.warning(
            "%d of %d synthetic images say neither what they were made from (parent_ids) nor by "
            "which model (checkpoint): a leak through it cannot be seen",
            int(unknown.sum()), len(synthetic),
        )  # fmt: skip


def _column(frame: pd.DataFrame, name: str) -> pd.Series:
    """A column, empty where the table has none."""
    return frame[name] if name in frame else pd.Series("", index=frame.index)


def _accepted(frame: pd.DataFrame, column: str) -> set[str]:
    return set(frame.loc[frame["leak"] == ACCEPTED, column]) if "leak" in frame else set()


def _refuse(offenders: set[str], what: str, remedy: str) -> None:
    if offenders:
        shown = ", ".join(sorted(offenders)[:5]) + (", ..." if len(offenders) > 5 else "")
        raise DatasetError(f"{what}: {len(offenders)} ({shown}); {remedy}")


def build(
    frame: pd.DataFrame, image_size: int | None, classes: Sequence[str] | None = None
) -> ImageSet:
    """A set for classification (`classes` given) or segmentation, nothing decoded yet.

    Raises: `DatasetError` for a label outside `classes`.
    """

    def mask(path: Path) -> np.ndarray:
        pixels = read_mask(path)
        pixels = pixels if image_size is None else fit_mask(pixels, image_size, "squash")
        return pixels.astype(np.uint8)

    images = _images(frame, image_size)
    if classes is None:
        masks = PixelReader(frame["mask"].tolist(), mask)
        if masks.shape != images.shape[:2]:
            raise DatasetError(
                f"{masks.paths[0]}: found a mask of {masks.shape[1]}x{masks.shape[0]} px, "
                f"expected {images.shape[1]}x{images.shape[0]} as its image; set image_size"
            )
        return ImageSet(frame, images, masks=masks)
    strange = sorted(set(frame["label"]) - set(classes))
    if strange:
        raise DatasetError(f"found labels {strange}, expected only {list(classes)}; remove them")
    index = {code: k for k, code in enumerate(classes)}
    return ImageSet(frame, images, labels=frame["label"].map(index).to_numpy(np.int64))


def build_unlabelled(frame: pd.DataFrame, image_size: int | None) -> ImageSet:
    """A set to predict on, nothing decoded yet: its class indices are all 0 and say nothing."""
    return ImageSet(frame, _images(frame, image_size), labels=np.zeros(len(frame), np.int64))


def _images(frame: pd.DataFrame, image_size: int | None) -> PixelReader:
    def image(path: Path) -> np.ndarray:
        pixels = read_image(path)
        return pixels if image_size is None else fit_image(pixels, image_size, "squash")

    return PixelReader(frame["image"].tolist(), image)


def keep_in_memory(sets: Sequence[ImageSet], memory_gb: float) -> bool:
    """Decode the sets once if all of them fit in `memory_gb`; says in the log which way it went.

    Raises: `DatasetError` when images differ in size, within or across sets.
    """
    shapes = {data.images.shape for data in sets}
    if len(shapes) > 1:
        raise DatasetError(f"found images of sizes {sorted(shapes)}, expected one; set image_size")
    arrays = [pixels for s in sets for pixels in (s.images, s.masks) if pixels is not None]
    total = sum(pixels.nbytes for pixels in arrays)
    fits = total <= memory_gb * GIGABYTE
    LOGGER.info(
        "%d images, %.2f GB decoded: %s", sum(map(len, sets)), total / GIGABYTE,
        "kept in memory" if fits else f"above memory_gb = {memory_gb:g}, read on demand",
    )  # fmt: skip
    if fits:
        for pixels in arrays:
            pixels.keep()
    return fits


def read_ahead(
    data: ImageSet, indices: Iterable[np.ndarray], ahead: int = 2
) -> Generator[Batch, None, None]:
    """`data.batch` of each item of `indices`, in order, at most `ahead` of them read in advance.

    Reading has no randomness, so batches are those that reading in turn would give. An error while
    reading is raised when its batch is due. A thread, for Pillow releases the interpreter lock:
    torch's DataLoader took 10 % to 40 % longer, its processes half a second and more to start at
    every evaluation, and it hides the message of a broken image in a worker's traceback.
    """
    if data.in_memory:
        yield from map(data.batch, indices)
        return
    remaining = iter(indices)
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[Batch]] = deque(
            pool.submit(data.batch, rows) for rows in islice(remaining, ahead)
        )
        try:
            while waiting:
                batch = waiting.popleft().result()
                for rows in islice(remaining, 1):
                    waiting.append(pool.submit(data.batch, rows))
                yield batch
        finally:
            for future in waiting:
                future.cancel()
