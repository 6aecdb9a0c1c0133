"""How fast the classifiers' training loop is beside a plain one in timm's manner.

Run: python -m benchmarks.training_loop [--images 256] [--steps 24] [--size 128] [--workers 2]
The plain loop: a DataLoader whose workers decode and augment each image when it is drawn (flips,
turns and colors by torchvision, as timm's own transforms do), batches stacked channels-first. Ours
is `didgen.downstream.training` itself, once with images kept in memory and once with
`memory_gb: 0`, where they are read ahead. Same network, batch size, precision, optimiser and number
of threads; JPEG files of photograph-like content on disk.

Prints images a second in wall-clock time with their ratio, and the share of the time for which the
network waits for images: decoding that starves it would show there. Rounds alternate, so that a
busy machine slows all. On a processor most of the gain is the memory layout, in which convolutions
are faster. `--made-up` leaves the network out and measures data loading alone.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from didgen.downstream import training
from didgen.downstream.augmentation import to_float
from didgen.downstream.classifiers import build_classifier, classification_loss
from didgen.downstream.datasets import ImageSet, build, keep_in_memory, read_ahead
from didgen.runtime.precision import autocast, default_device
from didgen.settings.schedule import Schedule

BATCH = 16
WARMUP = 3
LOOPS = ("ours, in memory", "ours, read ahead", "plain")


@dataclass
class Timing:
    """Seconds of one loop over its steps, and those of them spent waiting for a batch."""

    seconds: float
    waiting: float


class PlainImages(Dataset):
    """One decode and one augmentation for each draw."""

    def __init__(self, paths: list[Path], labels: np.ndarray) -> None:
        from torchvision.transforms import v2

        self.paths, self.labels = paths, labels
        self.transform = v2.Compose([
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            v2.RandomChoice([v2.Identity(), v2.RandomRotation((90, 90))]),
            v2.ColorJitter(0.15, 0.15, 0.15),
            v2.PILToTensor(),
        ])  # fmt: skip

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, k: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.paths[k]) as image:
            return self.transform(image.convert("RGB")), int(self.labels[k])


def photographs(folder: Path, n: int, size: int) -> pd.DataFrame:
    """JPEG files of smooth random content, which decode about as photographs do."""
    rng = np.random.default_rng(0)
    rows = []
    for k in range(n):
        coarse = Image.fromarray(rng.integers(0, 256, (size // 4, size // 4, 3), dtype=np.uint8))
        pixels = coarse.resize((size, size), Image.Resampling.BICUBIC)
        pixels.save(folder / f"{k}.jpg", quality=92)
        label = ("MEL", "NV")[k % 2]
        rows.append({"id": str(k), "image": folder / f"{k}.jpg", "mask": None, "label": label})
    return pd.DataFrame(rows)


def waited(batches: Iterator, clock: Timing) -> Iterator:
    """The batches, with the time that it takes to get each added to the clock."""
    while True:
        started = time.perf_counter()
        batch = next(batches, None)
        clock.waiting += time.perf_counter() - started
        if batch is None:
            return
        yield batch


def plan(steps: int, precision: str) -> Schedule:
    """One evaluation, after the last step, which is not timed."""
    return Schedule(steps=steps, batch_size=BATCH, eval_every=steps, precision=precision)


class Empty(nn.Module):
    """Stands for a network that takes no time: what is left is data loading."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(2))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (B, 2)."""
        return images[:, :2, 0, 0] * 0 + self.bias


def network(size: int, name: str) -> nn.Module:
    """The classifier, or none."""
    torch.manual_seed(0)
    return (
        Empty()
        if name == "none"
        else build_classifier(name, 2, size, pretrained=True, weights=None).model
    )


def ours(data: ImageSet, model: nn.Module, steps: int, precision: str) -> Timing:
    """Our steps, with our draws and our data loading, timed after a warm-up."""
    device = default_device()
    schedule = plan(steps + WARMUP, precision)
    optimizer = torch.optim.AdamW(model.to(device).parameters(), schedule.learning_rate)
    train_step = training.Step(
        model, optimizer, classification_loss, schedule, 0, device, precision
    )
    clock = Timing(0.0, 0.0)
    indices = training.draws(data.labels, len(data), schedule, 0)
    with training.seeded(0):
        for step, batch in enumerate(waited(read_ahead(data, indices), clock)):
            if step == WARMUP:
                _wait_for(device)
                started, clock.waiting = time.perf_counter(), 0.0
            train_step(step, batch)
            if step + 1 == steps + WARMUP:
                break
        _wait_for(device)
    clock.seconds = time.perf_counter() - started
    return clock


def plain(data: ImageSet, model: nn.Module, steps: int, precision: str, workers: int) -> Timing:
    """The same steps, written out as tutorials do."""
    device = default_device()
    schedule = plan(steps + WARMUP, precision)
    optimizer = torch.optim.AdamW(model.to(device).parameters(), schedule.learning_rate)
    loader = DataLoader(
        PlainImages(data.images.paths, data.labels), BATCH, shuffle=True, drop_last=True,
        num_workers=workers, persistent_workers=workers > 0, pin_memory=device.type == "cuda",
    )  # fmt: skip
    clock = Timing(0.0, 0.0)

    def passes() -> Iterator:
        while True:
            yield from loader

    model.train()
    for step, (images, labels) in enumerate(waited(passes(), clock)):
        if step == WARMUP:
            _wait_for(device)
            started, clock.waiting = time.perf_counter(), 0.0
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate
        with autocast(device, precision):
            outputs = model(to_float(images.to(device, non_blocking=True)))
        loss = classification_loss(outputs, labels.to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), training.GRADIENT_NORM)
        optimizer.step()
        if step + 1 == steps + WARMUP:
            break
    _wait_for(device)
    clock.seconds = time.perf_counter() - started
    return clock


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def measure(chosen: argparse.Namespace, folder: Path) -> dict[str, list[Timing]]:
    """Timings of each loop, one a round."""
    frame = photographs(folder, chosen.images, chosen.size)
    precision = training.arithmetic("auto", default_device())
    kept, lazy = (build(frame, None, ["MEL", "NV"]) for _ in range(2))
    keep_in_memory([kept], 64)
    timings: dict[str, list[Timing]] = {name: [] for name in LOOPS}
    for _ in range(chosen.rounds):
        for name, data in zip(LOOPS, (kept, lazy, lazy), strict=True):
            model = network(chosen.size, "none" if chosen.made_up else chosen.model)
            if name == "plain":
                timing = plain(data, model, chosen.steps, precision, chosen.workers)
            else:
                timing = ours(data, model, chosen.steps, precision)
            timings[name].append(timing)
    return timings


def report(results: dict[str, list[Timing]], steps: int) -> None:
    """Medians over the rounds; the ratio is that of each round's pair."""
    for name, timings in results.items():
        rate = statistics.median(steps * BATCH / t.seconds for t in timings)
        share = statistics.median(t.waiting / t.seconds for t in timings)
        pairs = zip(results["plain"], timings, strict=True)
        ratio = statistics.median(other.seconds / own.seconds for other, own in pairs)
        print(
            f"{name + ':':18} {rate:8.1f} images/s, {100 * share:5.1f} % waiting for images, "
            f"{ratio:.2f}x plain"
        )


def main() -> None:
    """Measure the loops in turn and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="of the plain loop's DataLoader")
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--made-up", action="store_true", help="no network: data loading alone")
    parser.add_argument("--threads", type=int, default=None, help="of PyTorch; default: its own")
    chosen = parser.parse_args()
    if chosen.threads is not None:
        torch.set_num_threads(chosen.threads)
    with tempfile.TemporaryDirectory() as folder:
        report(measure(chosen, Path(folder)), chosen.steps)


if __name__ == "__main__":
    main()
