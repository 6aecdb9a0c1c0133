"""What training never computes twice: VAE moments, text embeddings and token masks, on disk.

Shapes: N images, P prompts; moments (N, 2, C, h, w) hold mean and standard deviation of the scaled
latent; embeddings (P, T, D); masks (N, 2, r, r) hold the soft lesion and skin masks.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap

from didgen.attention.maps import resize_mask
from didgen.backbone.handle import Backbone
from didgen.data.files import atomic_path, reserve
from didgen.data.images import read_image, read_mask
from didgen.data.progress import track

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingItem:
    """One training image: its files, and the prompt it is trained with."""

    id: str
    image: Path
    mask: Path | None
    prompt: str


@dataclass(frozen=True)
class TrainingCache:
    """Memory-mapped inputs of training; row i belongs to item i."""

    moments: np.ndarray
    masks: np.ndarray
    has_mask: np.ndarray
    embeddings: np.ndarray
    # Row of `embeddings` of each item's prompt; the fixed prompts have rows of their own.
    prompt_rows: np.ndarray
    fixed_rows: dict[str, int]

    def __len__(self) -> int:
        return len(self.moments)


def build_cache(
    backbone: Backbone,
    items: Sequence[TrainingItem],
    fixed_prompts: Sequence[str],
    folder: Path,
    resolution: int = 16,
    batch_size: int = 16,
) -> TrainingCache:
    """Encode all images and prompts once; a finished cache in `folder` is opened again.

    `fixed_prompts` are those that stand for dropped captions. Raises: `ValueError` when an image is
    not of the backbone's size.
    """
    prompts = list(dict.fromkeys([*fixed_prompts, *(item.prompt for item in items)]))
    rows = {prompt: row for row, prompt in enumerate(prompts)}
    key = _key(backbone, items, prompts, resolution)
    folder = folder / f"cache-{key}"
    if not (folder / "embeddings.npy").is_file():
        _write_moments(backbone, items, folder, batch_size)
        _write_masks(items, backbone.image_size, resolution, folder)
        _write_embeddings(backbone, prompts, folder, batch_size)
    return TrainingCache(
        moments=np.load(folder / "moments.npy", mmap_mode="r"),
        masks=np.load(folder / "masks.npy", mmap_mode="r"),
        has_mask=np.array([item.mask is not None for item in items]),
        embeddings=np.load(folder / "embeddings.npy", mmap_mode="r"),
        prompt_rows=np.array([rows[item.prompt] for item in items]),
        fixed_rows={prompt: rows[prompt] for prompt in fixed_prompts},
    )


def _key(backbone: Backbone, items: Sequence[TrainingItem], prompts: list, resolution: int) -> str:
    digest = hashlib.sha256(f"{backbone.checksum()}/{resolution}".encode())
    for item in items:
        digest.update(f"{item.id}\0{item.image}\0{item.image.stat().st_size}\0".encode())
        digest.update(hashlib.sha256(item.image.read_bytes()).digest())
        digest.update(b"" if item.mask is None else hashlib.sha256(item.mask.read_bytes()).digest())
    digest.update("\0".join(prompts).encode())
    return digest.hexdigest()[:16]


def _read_batch(items: Sequence[TrainingItem], size: int) -> torch.Tensor:
    images = [read_image(item.image) for item in items]
    for item, image in zip(items, images, strict=True):
        if image.shape[:2] != (size, size):
            raise ValueError(
                f"{item.image}: found {image.shape[1]}x{image.shape[0]} px, expected {size}x{size} "
                "as the backbone works at; set data.size accordingly and prepare again"
            )
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    return pixels.float() / 127.5 - 1.0


@torch.inference_mode()
def _write_moments(
    backbone: Backbone, items: Sequence[TrainingItem], folder: Path, batch_size: int
) -> None:
    side, channels = backbone.latent_size, backbone.latent_channels
    with atomic_path(folder / "moments.npy") as path:
        # Half precision is enough for a mean that gets noise added, and halves the file.
        stored = open_memmap(path, "w+", np.float16, (len(items), 2, channels, side, side))
        reserve(path)
        starts = range(0, len(items), batch_size)
        for start in track(starts, label="encode images (batches)"):
            batch = _read_batch(items[start : start + batch_size], backbone.image_size)
            mean, std = backbone.encode_moments(batch.to(backbone.device, backbone.dtype))
            both = torch.stack([mean, std], dim=1).float().cpu().numpy()
            stored[start : start + len(both)] = both
        stored.flush()


@torch.inference_mode()
def _write_embeddings(
    backbone: Backbone, prompts: Sequence[str], folder: Path, batch_size: int
) -> None:
    with atomic_path(folder / "embeddings.npy") as path:
        stored = None
        for start in range(0, len(prompts), batch_size):
            found = backbone.embed(list(prompts[start : start + batch_size])).float().cpu().numpy()
            if stored is None:
                stored = open_memmap(path, "w+", np.float16, (len(prompts), *found.shape[1:]))
                reserve(path)
            stored[start : start + len(found)] = found
        stored.flush()


def _write_masks(items: Sequence[TrainingItem], size: int, resolution: int, folder: Path) -> None:
    with atomic_path(folder / "masks.npy") as path:
        stored = open_memmap(path, "w+", np.float32, (len(items), 2, resolution, resolution))
        reserve(path)
        for row, item in enumerate(items):
            if item.mask is None:
                stored[row] = 0.0
                continue
            lesion = torch.from_numpy(read_mask(item.mask, (size, size))).float()[None, None]
            soft = resize_mask(lesion, (resolution, resolution))[0, 0].numpy()
            stored[row] = np.stack([soft, 1.0 - soft])
        stored.flush()
