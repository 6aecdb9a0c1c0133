"""Made-up images on disk, and short trainings of the adversarial methods on them."""

from pathlib import Path

import numpy as np
import pandas as pd

from didgen.methods.protocol import load_method
from didgen.runtime.files import write_png
from didgen.settings.train import Config

SIDE = 32


class Killed(Exception):
    """Stands for SIGKILL: nothing of ours handles it."""


def images(folder: Path, side: int = SIDE, **counts: int) -> pd.DataFrame:
    """So many images of each label, a disc on skin each, with the disc's mask."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:side, :side]
    found = []
    for label, count in counts.items():
        for number in range(count):
            name = f"{label}{number}"
            row, column, radius = rng.uniform(0.35, 0.65, 3) * side * (1, 1, 0.5)
            mask = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
            pixels = np.where(mask[..., None], (90, 60, 40), (230, 190, 170))
            pixels = pixels + rng.normal(0, 8, pixels.shape)
            write_png(folder / f"images/{name}.png", pixels.clip(0, 255).astype(np.uint8))
            write_png(folder / f"masks/{name}.png", mask)
            files = {part: folder / f"{part}s/{name}.png" for part in ("image", "mask")}
            found.append({"id": name, "label": label, "caption": "", **files})
    return pd.DataFrame(found)


def config(method: str, folder: Path, own: dict, seed: int = 0) -> Config:
    """The stage's settings with those of the method, in a folder."""
    return Config(
        method=method,
        own=own,
        train=folder / "train.csv",
        captions=folder / "captions.csv",
        out=folder / method,
        state=folder / "state",
        seed=seed,
    )


def train(method: str, folder: Path, own: dict, data: pd.DataFrame, seed: int = 0) -> Path:
    """Train a method and give its folder."""
    chosen = config(method, folder, own, seed)
    load_method(method).train(data, chosen)
    return chosen.out


def stop_at(monkeypatch, training: type, number: int) -> None:
    """Have the training be killed before its step `number`, counted from 0 over all models."""
    whole, done = training.step, []

    def step(self, at):
        if len(done) == number:
            raise Killed
        done.append(at)
        return whole(self, at)

    monkeypatch.setattr(training, "step", step)


def weights(folder: Path) -> dict[str, bytes]:
    """The bytes of every file of weights."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.safetensors")}
