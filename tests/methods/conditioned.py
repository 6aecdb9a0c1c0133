"""A miniature fine-tuned backbone, and requests with masks, for methods on it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from didgen.backbone.handle import Backbone
from didgen.backbone.placeholder import add_placeholder_tokens
from didgen.methods.protocol import Request, Synthesizer, load_method
from didgen.settings.pairs import RivalConfig
from didgen.tiny.architecture import MINIATURE, build

SIDE = 128
PROMPT = "An image of <lesion> on <skin>."
# Of the two tokens in it.
POSITIONS = [4, 6]


def backbone() -> Backbone:
    """Random weights, frozen, with both placeholder tokens; 128 px, latents 32x32."""
    built = build(replace(MINIATURE, image_size=SIDE), seed=0, scaling_factor=0.5)
    add_placeholder_tokens(built.tokenizer, built.text_encoder)
    # Random projections give almost flat attention; sharper ones make the tests mean something.
    for name, parameter in built.unet.named_parameters():
        parameter.requires_grad_(False)
        if "to_q" in name or "to_k" in name:
            parameter.mul_(3.0)
    return built


def disk(column: int = 50, radius: int = 30) -> np.ndarray:
    """A round lesion, bool (SIDE, SIDE)."""
    y, x = np.mgrid[:SIDE, :SIDE]
    return (y - 60) ** 2 + (x - column) ** 2 < radius**2


def disks(count: int) -> Tensor:
    """Lesions one after the other, each further right, bool (count, 1, SIDE, SIDE)."""
    return torch.from_numpy(np.stack([disk(50 + 5 * n) for n in range(count)]))[:, None]


def inputs(backbone: Backbone, batch: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """What a guide gets at a step: latents, timestep and embeddings."""
    latents = torch.randn(batch, 4, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return latents, torch.tensor(500), backbone.embed([PROMPT] * batch)


def request(seed: int, mask: bool = True) -> Request:
    """A request whose lesion lies further right the larger its seed."""
    layout = disk(50 + 5 * seed) if mask else None
    return Request(f"P{seed}", "MEL", "melanoma, a dark spot", seed, layout)


def config(method: str, folder: Path, own: dict | None = None, **changes) -> RivalConfig:
    """Settings of the stage `pairs` for a method; four steps."""
    values = {
        "train": folder / "train.csv",
        "captions": folder / "captions.csv",
        "model": folder / "backbone",
        "out": folder / "pairs",
        "steps": 4,
        "precision": "float32",
        "batch_size": 2,
    }
    own = {"conditions": "training"} | (own or {})
    return RivalConfig(method=method, own=own, **values | changes)


def opened(method: str, folder: Path, own: dict | None = None, **changes) -> Synthesizer:
    """A method without training over the backbone in `folder`."""
    return load_method(method).load(
        folder / "backbone", config(method, folder, own, **changes), "cpu"
    )
