"""How much faster the training loop is than a plain one (DataLoader, a decode for each draw).

Run: python benchmarks/training_loop.py [--images 64] [--steps 8] [--size 128]
Prints seconds a step of processor time for feeding data alone and for whole steps, with their
ratios. The gain in whole steps comes from the memory layout: ours feeds channels-last batches, a
DataLoader stacks them channels-first. Both loops use the same network, batch size,
augmentation and thread count.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from didgen.data.files import write_png
from didgen.downstream.augmentation import augment
from didgen.downstream.classifiers import build_classifier, classification_loss
from didgen.downstream.datasets import ImageSet, build, keep_in_memory

BATCH = 16


class PlainImages(Dataset):
    """One decode for each draw, as tutorials do."""

    def __init__(self, paths: list[Path], labels: np.ndarray) -> None:
        self.paths, self.labels = paths, labels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, k: int) -> tuple[torch.Tensor, int]:
        pixels = np.array(Image.open(self.paths[k]).convert("RGB"))
        return torch.from_numpy(pixels).permute(2, 0, 1), int(self.labels[k])


def made_up(folder: Path, n: int, size: int) -> pd.DataFrame:
    """Smooth random images on disk, which compress about as photographs do."""
    rng = np.random.default_rng(0)
    rows = []
    for k in range(n):
        coarse = Image.fromarray(rng.integers(0, 256, (size // 4, size // 4, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))
        write_png(folder / f"{k}.png", pixels)
        label = ("MEL", "NV")[k % 2]
        rows.append({"id": str(k), "image": folder / f"{k}.png", "mask": None, "label": label})
    return pd.DataFrame(rows)


def ours(data: ImageSet, steps: int):  # noqa: ANN201
    """Batches of our loop: bytes gathered from memory."""
    rng = np.random.default_rng(0)
    for _ in range(steps):
        yield data.batch(rng.permutation(len(data))[:BATCH])


def plain(data: ImageSet, steps: int):  # noqa: ANN201
    """Batches of the plain loop."""
    loader = DataLoader(PlainImages(data.images.paths, data.labels), BATCH, shuffle=True)
    done = 0
    while done < steps:
        for batch in loader:
            yield batch
            done += 1
            if done == steps:
                return


def seconds(batches, train: bool, size: int) -> list[float]:  # noqa: ANN001
    """Processor seconds of each step, with augmentation; `train` adds the network."""
    torch.manual_seed(0)
    model = build_classifier("efficientnet_lite0", 2, size).model
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    generator = torch.Generator().manual_seed(0)
    found = []
    started = time.process_time()
    for images, labels in batches:
        images, _ = augment(images, None, generator)
        if train:
            optimizer.zero_grad()
            classification_loss(model(images), labels).backward()
            optimizer.step()
        found.append(time.process_time() - started)
        started = time.process_time()
    return found


def main() -> None:
    """Measure both loops in turn, so that a busy machine slows both, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        data = build(made_up(Path(folder), chosen.images, chosen.size), None, ["MEL", "NV"])
        started = time.process_time()
        keep_in_memory([data], 1)
        print(f"decoding once: {time.process_time() - started:.3f} s for {len(data)} images")
        for name, train in (("data only", False), ("whole step", True)):
            steps = chosen.steps if train else 10 * chosen.steps
            times: dict[str, list[float]] = {"ours": [], "plain": []}
            for _ in range(chosen.rounds):
                for loop, make in (("ours", ours), ("plain", plain)):
                    times[loop] += seconds(make(data, steps), train, chosen.size)
            mine, theirs = (float(np.median(times[loop])) for loop in ("ours", "plain"))
            print(f"{name}: ours {mine:.4f} s, plain {theirs:.4f} s a step, {theirs / mine:.2f}x")


if __name__ == "__main__":
    main()
