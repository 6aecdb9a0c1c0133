"""What the adversarial methods share: images in memory, the training of a model, files, sampling.

A generator and a discriminator take turns. All that a step draws follows from a model's seed and
the step's number. Networks are trained and sampled in single precision, as in the methods' sources.
Shapes: B images of a step, S px a side, C channels.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import pandas as pd
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import didgen
from didgen.data.images import read_image
from didgen.methods.didgen.batches import batch_rows
from didgen.methods.protocol import Budget, Request, Sample, derive_seed
from didgen.runtime.files import (
    read_object,
    remove_leftovers,
    sha256_file,
    write_csv,
    write_json,
    write_text,
)
from didgen.runtime.locks import sole_writer
from didgen.runtime.memory import explain_no_memory
from didgen.runtime.outputs import output_folder, paths_read
from didgen.runtime.precision import default_device
from didgen.runtime.progress import track
from didgen.runtime.reproducible import deterministic_kernels
from didgen.settings.base import Preset
from didgen.settings.methods import BUDGET
from didgen.settings.train import Config
from didgen.training.log import Log
from didgen.training.loop import run_steps
from didgen.training.state import Parts, Row, resume_state

LOGGER = logging.getLogger(__name__)
P = TypeVar("P", bound=Preset)
# What a trained folder says about its generators, and where the weights of each lie.
CARD = "generators.json"
WEIGHTS = "generator.safetensors"
NOT_FINITE = "Lower the method's learning_rate, then run again"
NEEDS_LESS = (
    "What needs less, in the method's section: a smaller training_batch or channel_share; or a "
    "smaller data.size. The last saved state is kept, but training starts anew with these"
)


class Training(Protocol):
    """A generator and its discriminator in training.

    parts: what a step changes. steps: of the whole training. parameters: that are trained.
    images: that a step sees.
    """

    parts: Parts
    steps: int
    parameters: int
    images: int

    def step(self, number: int) -> Row:
        """Train both networks once; `number` steps are done. Raises: `NonFiniteLoss`."""

    def generator(self) -> nn.Module:
        """The generator with the weights that images are to be made with; training is over."""


@dataclass(frozen=True)
class Model:
    """A finished training: the generator's weights, a row for each step, and what it took."""

    weights: Mapping[str, Tensor]
    history: pd.DataFrame
    parameters: int
    images: int


# Images uint8 (N, 3, S, S), settings, seed and device -> the training of a model.
Start = Callable[[np.ndarray, Any, int, torch.device], Training]


def read_images(paths: Sequence[Path]) -> np.ndarray:
    """All images as uint8 (N, 3, S, S). Raises: `ValueError` unless all have the first one's square
    shape.
    """
    first = read_image(paths[0])
    side = len(first)
    images = np.empty((len(paths), 3, side, side), np.uint8)
    for number, path in enumerate(track(paths, label="read images")):
        pixels = read_image(path)
        if pixels.shape != (side, side, 3):
            height, width = pixels.shape[:2]
            raise ValueError(
                f"{path}: found {width}x{height} px, expected {side}x{side} px, as {paths[0]} is "
                "high; run the data stage again, which makes all images square and of one size"
            )
        images[number] = pixels.transpose(2, 0, 1)
    return images


def check_power_of_two(side: int, smallest: int, largest: int) -> None:
    """Raises: `ValueError` for a side, px, from which halving does not lead to 4."""
    if side & (side - 1) or not smallest <= side <= largest:
        raise ValueError(
            f"data.size: found images of {side} px, expected a power of two from {smallest} to "
            f"{largest}, since each level of this method's networks doubles the side; change "
            "data.size or leave the method out"
        )


def draw_batch(
    images: np.ndarray,
    size: int,
    step: int,
    seed: int,
    generator: torch.Generator,
    *,
    flips: bool,
    device: torch.device,
) -> Tensor:
    """The step's images in [0, 1], float (B, C, S, S) there; with `flips` each may be mirrored.

    images: uint8 (N, C, S, S). Each is seen once an epoch.
    """
    batch = torch.from_numpy(images[batch_rows(len(images), size, step, seed)])
    if flips:
        mirrored = torch.rand(size, generator=generator) < 0.5
        batch = torch.where(mirrored.view(-1, 1, 1, 1), batch.flip(-1), batch)
    # A quarter of the bytes travel.
    return batch.to(device).float() / 255


def step_generator(seed: int, step: int) -> torch.Generator:
    """The randomness of one step of the model of a seed."""
    return torch.Generator().manual_seed(derive_seed("gan", seed, step))


def squared_gradients(scores: Tensor, images: Tensor) -> Tensor:
    """The squared length of each score's gradient in its image (B,), which can be derived again.

    scores: (B, 1) of images (B, C, S, S) that require a gradient.
    """
    (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradient.square().sum((1, 2, 3))


def scaled(channels: int, share: float) -> int:
    """A share of the source's channels."""
    return max(1, round(channels * share))


def size_of(*networks: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for network in networks for p in network.parameters())


def finish(training: Training, state: Path, label: str, every: int) -> Model:
    """Train to the end, from the last saved state on where there is one; save `every` steps.

    Raises: as `run_steps`; `BrokenState`, `OutOfMemory`.
    """
    steps = training.steps
    with explain_no_memory(NEEDS_LESS):
        history = resume_state(training.parts, state, steps)
        run_steps(
            training.step, training.parts, history, steps, state,
            save_due=lambda done: done % every == 0 or done == steps,
            advice=NOT_FINITE, log=Log(label, state, every=1, report_to="none"),
        )  # fmt: skip
    weights = {
        name: value.detach().cpu().contiguous()
        for name, value in training.generator().state_dict().items()
    }
    # As a table it takes a tenth of the memory, until all models are trained.
    curve = pd.DataFrame(history)
    return Model(weights, curve, training.parameters, steps * training.images)


def train_classes(
    data: pd.DataFrame, config: Config, start: Start, departures: list[str], free: set[str]
) -> None:
    """Train a model of each diagnosis and write the folder of the method.

    departures: from the method's source, beside the settings that differ from it. free: settings
    with other values of which a training may be continued. The settings have `training_batch` and
    `checkpoint_every`.

    Raises: `ValueError` for a diagnosis with fewer images than a batch has, for images of several
    sizes, or as `start`; as `finish`.
    """
    own: Any = config.own
    labelled = data[data["label"] != ""]
    if len(labelled) < len(data):
        LOGGER.info("%d images left out: no label", len(data) - len(labelled))
    counts = labelled["label"].value_counts()
    scarce = {code: int(n) for code, n in sorted(counts.items()) if n < own.training_batch}
    if scarce or labelled.empty:
        raise ValueError(
            f"{config.train}: found {scarce or 'no labelled'} images, expected "
            f"{own.training_batch} of each diagnosis at least, a batch of the method "
            f"{config.method}; add images, lower methods.{config.method}.training_batch, or leave "
            "these out (data.classes)"
        )
    images = read_images(labelled["image"].tolist())
    labels = labelled["label"].to_numpy()
    state = config.state / state_key(config, free, labelled["id"], labels, images)
    device = default_device()
    models = {}
    with deterministic_kernels(device), sole_writer(state):
        remove_leftovers(state)
        for code in sorted(set(labels)):
            shown = images[labels == code]
            LOGGER.info("%s: %d images", code, len(shown))
            training = start(shown, own, derive_seed(config.seed, config.method, code), device)
            label = f"{config.method} {code}"
            models[code] = finish(training, state / code, label, own.checkpoint_every)
    write_models(config, images.shape[-1], models, departures)


def state_key(config: Config, free: set[str], *parts: Iterable[str] | np.ndarray) -> str:
    """What a saved state belongs to: method, settings but the `free` ones, seed and data."""
    own: Any = config.own
    settings = own.model_dump_json(exclude=free | {"preset", "checkpoint_every"})
    versions = f"{didgen.__version__}/{torch.__version__}"
    digest = hashlib.sha256(f"{config.method}/{settings}/{config.seed}/{versions}".encode())
    for part in parts:
        if isinstance(part, np.ndarray) and part.dtype == np.uint8:
            digest.update(np.ascontiguousarray(part).data)
        else:
            digest.update("\0".join(part).encode())
    return digest.hexdigest()[:16]


def write_models(
    config: Config, side: int, models: Mapping[str, Model], departures: list[str]
) -> None:
    """Write the folder of a trained method: a generator of each model, and what the training was.

    side: of the images, px. models: by name.
    """
    own: Any = config.own
    curve = pd.concat([model.history.assign(model=name) for name, model in models.items()])
    budget: Budget = {
        "parameters": sum(model.parameters for model in models.values()),
        "steps": sum(len(model.history) for model in models.values()),
        "images": sum(model.images for model in models.values()),
        "departures": departures + other_settings(own),
    }
    card = {
        "method": config.method,
        "side": side,
        "models": list(models),
        "own": own.model_dump(mode="json"),
    }
    with output_folder(config.out, "train", paths_read(config)) as folder:
        for name, model in models.items():
            place = folder / "models" / name
            place.mkdir(parents=True)
            save_file(dict(model.weights), place / WEIGHTS)
        write_csv(folder / "training.csv", curve)
        write_json(folder / CARD, card)
        write_json(folder / BUDGET, budget)
        write_text(folder / "config.json", config.model_dump_json(indent=2) + "\n")


def other_settings(own: Preset) -> list[str]:
    """The sizes and numbers of the settings that differ from the source's, in sentences."""
    return [
        f"{key} is {getattr(own, key)}; in the source it is {value}."
        for key, value in own.paper.items()
        if key != "checkpoint_every"
        and isinstance(value, int | float)
        and getattr(own, key) != value
    ]


@dataclass(frozen=True)
class Loaded:
    """What a method's folder holds: its generators by name, their settings and side, a digest."""

    generators: dict[str, nn.Module]
    own: Any
    side: int
    checkpoint: str

    @property
    def memory_gb(self) -> float:
        """What the weights take."""
        return size_of(*self.generators.values()) * 4 / 1e9


def load_models(
    folder: Path, settings: type[P], build: Callable[[P, int], nn.Module], device: str
) -> Loaded:
    """Open what `write_models` wrote. build: settings and side -> a generator.

    Raises: `ValueError`, which names the file, for one that is missing or damaged.
    """
    path = folder / CARD
    generators = {}
    try:
        card = read_object(path)
        own, side = settings.model_validate(card["own"]), int(card["side"])
        digest = hashlib.sha256(sha256_file(path).encode())
        for name in card["models"]:
            path = folder / "models" / name / WEIGHTS
            with torch.device("meta"):
                generator = build(own, side)
            generator.load_state_dict(load_file(path, device=device), assign=True)
            generators[name] = generator.eval().requires_grad_(False)
            digest.update(sha256_file(path).encode())
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ValueError(
            f"{path}: found no generator of this method that can be used ({_brief(error)}); train "
            "the method again"
        ) from error
    return Loaded(generators, own, side, digest.hexdigest()[:16])


def _brief(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return f"{error.error_count()} of its settings are wrong"
    return " ".join(str(error).split())[:300] or type(error).__name__


def to_pixels(images: Tensor) -> np.ndarray:
    """Images (B, 3, S, S) in [0, 1] as uint8 (B, S, S, 3)."""
    scaled = (images.float().clamp(0, 1) * 255).round().to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).cpu().numpy()


@dataclass(frozen=True, kw_only=True)
class GanSynthesizer:
    """What a synthesizer of trained generators says of itself."""

    loaded: Loaded
    passes: int = 1
    version: str = f"torch-{torch.__version__}"

    @property
    def checkpoint(self) -> str:
        """Digest of all generators."""
        return self.loaded.checkpoint

    @property
    def memory_gb(self) -> float:
        """What their weights take."""
        return self.loaded.memory_gb


@dataclass(frozen=True, kw_only=True)
class ClassSynthesizer(GanSynthesizer):
    """Makes images of a diagnosis with its own generator.

    make: generator and a seed of each image -> images in [0, 1], (B, 3, S, S).
    """

    make: Callable[[nn.Module, list[int]], Tensor]

    def check(self, requests: Sequence[Request]) -> None:
        """Raises: `ValueError` for a diagnosis that no model was trained on."""
        known = self.loaded.generators
        if missing := sorted({request.label for request in requests} - known.keys()):
            raise ValueError(
                f"found requests for {missing}, expected one of {list(known)}, which the method "
                "was trained on; train it on these too, or leave them out (images.classes)"
            )

    @torch.inference_mode()
    def synthesize(self, requests: Sequence[Request]) -> list[Sample]:
        """Make one image per request, in order; each depends on its own request alone."""
        seeds = [request.seed for request in requests]
        # Every generator makes a whole batch: kernels are chosen by its size.
        made = {
            label: to_pixels(self.make(self.loaded.generators[label], seeds))
            for label in dict.fromkeys(request.label for request in requests)
        }
        return [
            Sample(request, made[request.label][number]) for number, request in enumerate(requests)
        ]


def draw_normal(seeds: Sequence[int], *shape: int) -> Tensor:
    """Standard normal numbers (B, *shape), each image's from its own seed."""
    return torch.stack([torch.randn(shape, generator=_seeded(seed)) for seed in seeds])


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(seed, "latent"))
