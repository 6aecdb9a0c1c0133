"""Classifiers from timm: images to class logits."""

from dataclasses import dataclass

import torch
from torch import nn

from didgen.downstream.weights import LITE0_NAMES, describe_lite0, fill_classifier

FROM_SCRATCH = "none (trained from scratch)"


@dataclass(frozen=True)
class Built:
    """A network, its name, what its weights start from and how many parameters it trains."""

    model: nn.Module
    name: str
    weights: str

    @property
    def parameters(self) -> int:
        """The number of trainable parameters."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    def describe(self) -> dict[str, str | int]:
        """Name, starting weights and size, for result files."""
        return {"name": self.name, "weights": self.weights, "parameters": self.parameters}


def build_classifier(name: str, n_classes: int, image_size: int, pretrained: bool = True) -> Built:
    """A timm network with `n_classes` logits; shapes (B, 3, H, W) -> (B, n_classes).

    EfficientNet-Lite0 starts from its packaged ImageNet weights if `pretrained`; every other
    network starts from scratch, and its description says so.
    Raises: ValueError for a name timm does not know or fewer than two classes.
    """
    import timm

    if n_classes < 2:
        raise ValueError(
            f"found {n_classes} class(es), expected at least two; a classifier needs a choice"
        )
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"{name[:5]}*")[:5]) or "none alike"
        raise ValueError(f"timm has no model {name!r} (alike: {near}); see timm.list_models()")
    options = {}
    config = timm.get_pretrained_cfg(name)
    if config is not None and config.fixed_input_size:
        # Transformers size their position embeddings for one image size.
        options["img_size"] = image_size
    model = timm.create_model(name, pretrained=False, num_classes=n_classes, **options)
    if pretrained and name in LITE0_NAMES:
        fill_classifier(model, name)
        return Built(model, name, describe_lite0())
    return Built(model, name, FROM_SCRATCH)


def classification_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy, averaged over the batch. Shapes: (B, K) logits, (B,) class indices."""
    return nn.functional.cross_entropy(logits.float(), labels)
