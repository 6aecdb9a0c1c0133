"""Classifiers from timm: images to class logits."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from didgen.downstream.saved import load_network, save_network
from didgen.downstream.weights import (
    FROM_SCRATCH,
    LITE0_NAMES,
    create,
    describe_lite0,
    fill_classifier,
    find,
    standardize,
)

Loss = Callable[[Any, Tensor], Tensor]
# Where a file says how to build its network again.
CARD = "classifier"


@dataclass(frozen=True)
class Built:
    """A network, its name, what its weights start from, and its loss if it needs its own.

    `standardized`: its encoder sees images by ImageNet's mean and deviation, else in [-1, 1].
    """

    model: nn.Module
    name: str
    weights: str
    loss: Loss | None = None
    standardized: bool = False

    @property
    def parameters(self) -> int:
        """The number of trainable parameters."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    def describe(self) -> dict[str, str | int]:
        """Name, starting weights and size, for result files."""
        return {
            "name": self.name,
            "weights": self.weights,
            "parameters": self.parameters,
            "input": "ImageNet mean and deviation" if self.standardized else "[-1, 1]",
        }


def build_classifier(
    name: str,
    n_classes: int,
    image_size: int,
    pretrained: bool,
    weights: str | None,
) -> Built:
    """A timm network with `n_classes` logits; shapes (B, 3, H, W) -> (B, n_classes).

    If `pretrained`, it starts from `weights`, a .safetensors file or `hub`; without them,
    EfficientNet-Lite0 from its packaged ImageNet weights and every other network from scratch.
    Raises: ValueError for a name timm does not know, fewer than two classes or unfit weights.
    """
    import timm

    if n_classes < 2:
        raise ValueError(
            f"found {n_classes} class(es), expected at least two; a classifier needs a choice"
        )
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"{name[:5]}*")[:5]) or "none alike"
        raise ValueError(f"timm has no model {name!r} (alike: {near}); see timm.list_models()")
    options: dict[str, Any] = {"num_classes": n_classes}
    config = timm.get_pretrained_cfg(name)
    if config is not None and config.fixed_input_size:
        # Transformers size their position embeddings for one image size.
        options["img_size"] = image_size
    source = find(name, weights) if pretrained else None
    if source is not None:
        path, origin = source
        model = create(name, path, **options)
        standardize(model, name)
        return Built(model, name, f"{origin}; last layer from scratch", standardized=True)
    model = create(name, None, **options)
    if pretrained and weights is None and name in LITE0_NAMES:
        fill_classifier(model)
        return Built(model, name, describe_lite0())
    return Built(model, name, FROM_SCRATCH)


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, averaged over the batch. Shapes: (B, K) logits, (B,) class indices."""
    return nn.functional.cross_entropy(logits.float(), labels)


def class_weights(labels: np.ndarray, n_classes: int) -> Tensor:
    """Weights (K,) by which every class has the same sum over the images: N / (K' n_k).

    K' counts the classes that occur; the others have weight 0. Shapes: (N,) class indices.
    """
    counts = np.bincount(labels, minlength=n_classes)
    occurring = np.count_nonzero(counts)
    weights = np.divide(len(labels), occurring * counts, out=np.zeros(n_classes), where=counts > 0)
    return torch.from_numpy(weights).float()


def weighted_loss(weights: Tensor) -> Loss:
    """Cross-entropy in which an image counts by the weight of its class; weights (K,)."""

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        own = weights.to(logits.device)
        # Divided by the number of images: the mean over batches is then that over the set, whatever
        # classes a batch happens to hold.
        total = nn.functional.cross_entropy(logits.float(), labels, own, reduction="sum")
        return total / len(labels)

    return loss


@dataclass(frozen=True)
class ClassifierCard:
    """How a classifier was built and trained.

    `classes`: those of its logits, in order. `image_size`: side in px to which it wants images
    squashed, None: as they are; `shape`: their height and width then. `weights`: what it started
    from. `standardized`: it sees images by ImageNet's mean and deviation. `precision`: its
    arithmetic.
    """

    name: str
    classes: tuple[str, ...]
    image_size: int | None
    shape: tuple[int, int]
    weights: str
    standardized: bool
    precision: str


def save_classifier(path: Path, model: nn.Module, card: ClassifierCard) -> None:
    """Write weights and card into one file."""
    save_network(path, model, CARD, card)


def load_classifier(path: Path, stage: str) -> tuple[Built, ClassifierCard]:
    """The classifier in evaluation mode on the CPU, and its card; `stage`: the one that saved it.

    Raises: `SavedNetworkError` when the file is missing or is something else.
    """
    return load_network(path, CARD, stage, _from_card)


def _from_card(values: dict[str, Any]) -> tuple[nn.Module, tuple[Built, ClassifierCard]]:
    rows = {name: tuple(values[name]) for name in ("classes", "shape")}
    card = ClassifierCard(**values | rows)
    model = build_classifier(card.name, len(card.classes), max(card.shape), False, None).model
    if card.standardized:
        standardize(model, card.name)
    return model, (Built(model, card.name, card.weights, standardized=card.standardized), card)
