"""What training never computes twice: VAE moments, text embeddings and token masks, on disk.

Shapes: N images, P prompts; moments (N, 2, C, h, w) hold mean and standard deviation of the scaled
latent; embeddings (P, T, D); masks (N, 2, r, r) hold the soft lesion and skin masks. With flips,
N rows of mirror images follow.
"""

import hashlib
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from PIL import Image

from didgen.attention.maps import resize_mask
from didgen.backbone.handle import Backbone
from didgen.data.images import read_image, read_mask
from didgen.runtime.files import atomic_path, reserve
from didgen.runtime.progress import track

LOGGER = logging.getLogger(__name__)
# Encoded at once: prompts or images, and of large images no more than four of 512x512, each of
# which takes the autoencoder half a gigabyte and more.
BATCH, PIXELS = 16, 4 * 512**2


@dataclass(frozen=True)
class TrainingItem:
    """One training image: its files, and the prompt it is trained with."""

    id: str
    image: Path
    mask: Path | None
    prompt: str


@dataclass(frozen=True)
class PriorRows:
    """Prior preservation: the last `count` images are the backbone's own, `weight` their loss's."""

    count: int
    weight: float


@dataclass(frozen=True)
class TrainingCache:
    """Memory-mapped inputs of training; row i belongs to item i, row N + i to its mirror image.

    `images` is N; `has_mask` and `prompt_rows` have an entry a row.
    """

    images: int
    moments: np.ndarray
    masks: np.ndarray
    has_mask: np.ndarray
    embeddings: np.ndarray
    # Row of `embeddings` of each item's prompt; the fixed prompts have rows of their own.
    prompt_rows: np.ndarray
    fixed_rows: dict[str, int]
    prior: PriorRows | None = None

    def __len__(self) -> int:
        return self.images


def build_cache(
    backbone: Backbone,
    items: Sequence[TrainingItem],
    fixed_prompts: Sequence[str],
    folder: Path,
    resolution: int = 16,
    *,
    flips: bool,
) -> TrainingCache:
    """Encode all images and prompts once; a finished cache in `folder` is opened again.

    `fixed_prompts` are those that stand for dropped captions. With `flips`, mirror images are
    cached too, with mirrored masks and prompts. Raises: `ValueError` when an image is not of the
    backbone's size, or a mask marks nothing; both before anything is encoded.
    """
    item_prompts = [item.prompt for item in items]
    if flips:
        item_prompts += [mirror_words(prompt) for prompt in item_prompts]
    prompts = list(dict.fromkeys([*fixed_prompts, *item_prompts]))
    rows = {prompt: row for row, prompt in enumerate(prompts)}
    key = _key(backbone, items, prompts, resolution, flips)
    folder = folder / f"cache-{key}"
    if not (folder / "embeddings.npy").is_file():
        check_sizes((item.image for item in items), backbone.image_size)
        _write_masks(items, backbone.image_size, resolution, folder, flips)
        together = max(1, min(BATCH, PIXELS // backbone.image_size**2))
        _write_moments(backbone, items, folder, together, flips)
        _write_embeddings(backbone, prompts, folder, BATCH)
    return TrainingCache(
        images=len(items),
        moments=np.load(folder / "moments.npy", mmap_mode="r"),
        masks=np.load(folder / "masks.npy", mmap_mode="r"),
        has_mask=np.array([item.mask is not None for item in items] * (1 + flips)),
        embeddings=np.load(folder / "embeddings.npy", mmap_mode="r"),
        prompt_rows=np.array([rows[prompt] for prompt in item_prompts]),
        fixed_rows={prompt: rows[prompt] for prompt in fixed_prompts},
    )


def mirror_words(prompt: str) -> str:
    """The prompt of the mirror image: left and right change places."""
    other = {"left": "right", "right": "left"}
    return re.sub(r"\b(left|right)\b", lambda match: other[match[0]], prompt)


def _key(
    backbone: Backbone,
    items: Sequence[TrainingItem],
    prompts: list,
    resolution: int,
    flips: bool,
) -> str:
    digest = hashlib.sha256(f"{backbone.checksum()}/{resolution}/{flips}".encode())
    for item in items:
        digest.update(f"{item.id}\0{item.image}\0{item.image.stat().st_size}\0".encode())
        digest.update(hashlib.sha256(item.image.read_bytes()).digest())
        digest.update(b"" if item.mask is None else hashlib.sha256(item.mask.read_bytes()).digest())
    digest.update("\0".join(prompts).encode())
    return digest.hexdigest()[:16]


def check_sizes(paths: Iterable[Path], size: int) -> None:
    """Check the headers of all images before hours of work on them.

    Raises: `ValueError` when any is not of the backbone's size, px.
    """
    wrong, count = [], 0
    for path in paths:
        count += 1
        try:
            with Image.open(path) as opened:
                actual = opened.size
        except (OSError, SyntaxError):
            continue  # reading it in full says what is wrong
        if actual != (size, size):
            wrong.append(f"{path}: found {actual[0]}x{actual[1]} px")
    if wrong:
        raise ValueError(
            f"{wrong[0]}, expected {size}x{size} as the backbone works at ({len(wrong)} of {count} "
            "images); set data.size accordingly and prepare again, or fine-tune with "
            "finetune.image_size"
        )


def _read_batch(items: Sequence[TrainingItem]) -> torch.Tensor:
    images = [read_image(item.image) for item in items]
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    return pixels.float() / 127.5 - 1.0


@torch.inference_mode()
def _write_moments(
    backbone: Backbone,
    items: Sequence[TrainingItem],
    folder: Path,
    batch_size: int,
    flips: bool,
) -> None:
    side, channels = backbone.latent_size, backbone.latent_channels
    with atomic_path(folder / "moments.npy") as path:
        shape = (len(items) * (1 + flips), 2, channels, side, side)
        # Half precision is enough for a mean that gets noise added, and halves the file.
        stored = open_memmap(path, "w+", np.float16, shape)
        reserve(path)
        starts = range(0, len(items), batch_size)
        for start in track(starts, label="encode images (batches)"):
            batch = _read_batch(items[start : start + batch_size])
            for first, images in ((start, batch), (len(items) + start, batch.flip(-1))):
                if first >= len(stored):
                    break
                mean, std = backbone.encode_moments(images.to(backbone.device, backbone.dtype))
                both = torch.stack([mean, std], dim=1).float().cpu().numpy()
                stored[first : first + len(both)] = both
        stored.flush()


@torch.inference_mode()
def _write_embeddings(
    backbone: Backbone, prompts: Sequence[str], folder: Path, batch_size: int
) -> None:
    with atomic_path(folder / "embeddings.npy") as path:
        stored = None
        for start in range(0, len(prompts), batch_size):
            embeddings = (
                backbone.embed(list(prompts[start : start + batch_size])).float().cpu().numpy()
            )
            if stored is None:
                stored = open_memmap(path, "w+", np.float16, (len(prompts), *embeddings.shape[1:]))
                reserve(path)
            stored[start : start + len(embeddings)] = embeddings
        if stored is not None:
            stored.flush()


def _write_masks(
    items: Sequence[TrainingItem], size: int, resolution: int, folder: Path, flips: bool
) -> None:
    with atomic_path(folder / "masks.npy") as path:
        shape = (len(items) * (1 + flips), 2, resolution, resolution)
        stored = open_memmap(path, "w+", np.float32, shape)
        reserve(path)
        for row, item in enumerate(items):
            soft = np.zeros((2, resolution, resolution), np.float32)
            if item.mask is not None:
                lesion = torch.from_numpy(read_mask(item.mask, (size, size))).float()[None, None]
                covered = resize_mask(lesion, (resolution, resolution))[0, 0].numpy()
                soft = np.stack([covered, 1.0 - covered])
            stored[row] = soft
            if flips:
                stored[len(items) + row] = soft[..., ::-1]
        stored.flush()
