"""Pretrained weights: those in the package, a local file's, or timm's from the hub."""

import logging
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from didgen.runtime.weights import HUB, WeightsError, check_file, describe_file

# Its origin and licence are in the README beside it.
LITE0_FILE = Path(__file__).parent / "pretrained" / "efficientnet_lite0.safetensors"
# The `tf_` twin has the same tensors; it pads as TensorFlow did when the weights were trained.
LITE0_NAMES = ("efficientnet_lite0", "tf_efficientnet_lite0")
FROM_SCRATCH = "none (trained from scratch)"
PREFIX_OF_UNET = "model."

LOGGER = logging.getLogger(__name__)


def describe_lite0() -> str:
    """What the weights are and where they come from, for result files."""
    return f"EfficientNet-Lite0 trained on ImageNet ({describe_file(LITE0_FILE)})"


def lite0_state() -> dict[str, torch.Tensor]:
    """The ImageNet weights but for the last layer; input is (x - 127) / 128 for x in 0..255."""
    return load_file(LITE0_FILE)


def fill_classifier(model: nn.Module) -> None:
    """Load all but the last layer, whose classes are the task's own."""
    missing, unexpected = model.load_state_dict(lite0_state(), strict=False)
    if unexpected or set(missing) != {"classifier.weight", "classifier.bias"}:
        raise WeightsError(
            f"found tensors {unexpected[:3]} that the network lacks and none for {missing[:3]}; "
            f"expected one of {', '.join(LITE0_NAMES)}"
        )


def fill_encoder(
    encoder: nn.Module, given: Mapping[str, torch.Tensor], name: str, origin: str
) -> None:
    """Load the feature layers of a segmentation encoder `name`; it has no head to fill.

    Raises: `WeightsError` where `given`, the weights of `origin`, lack a tensor.
    """
    own = encoder.state_dict()
    # Encoders of timm hold the network one level down, in an attribute called `model`.
    missing = [key for key in own if key.removeprefix(PREFIX_OF_UNET) not in given]
    if missing:
        raise WeightsError(
            f"{origin}: {len(missing)} of the encoder's {len(own)} tensors are not in it, the "
            f"first is {missing[0]}; expected the weights of {name}"
        )
    encoder.load_state_dict({key: given[key.removeprefix(PREFIX_OF_UNET)] for key in own})


def find(name: str, wanted: str | None) -> tuple[Path, str] | None:
    """The file of weights for timm's network `name`, and what to call them in result files.

    `wanted`: a .safetensors file, or `hub` for those that timm publishes, from the hub or its local
    cache; where these cannot be had, None and a warning. `wanted` None: no weights.
    Raises: `WeightsError` for a file that is missing or is no safetensors file.
    """
    if wanted is None:
        return None
    if wanted != HUB:
        path = Path(wanted)
        check_file(path)
        return path, describe_file(path)
    try:
        return published(name)
    # The hub's client raises its own, requests' and urllib's kinds, all of them OSError; a network
    # for which nothing is published, a ValueError.
    except (OSError, ValueError) as error:
        LOGGER.warning("%s: no weights from the hub (%s); it starts from scratch", name, error)
        return None


def published(name: str) -> tuple[Path, str]:
    """What timm publishes for a network: the file in the hub's cache, fetched if it must be.

    Raises: OSError without network, ValueError when nothing is published.
    """
    import timm
    from huggingface_hub import hf_hub_download

    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        raise ValueError("timm publishes none")
    path = hf_hub_download(config.hf_hub_id, "model.safetensors", etag_timeout=10)
    # The cache keeps each revision in a folder of its name.
    return Path(path), f"{config.hf_hub_id} (hub, revision {Path(path).parent.name})"


def create(name: str, path: Path | None, **options: object) -> nn.Module:
    """A timm network, with the weights of a safetensors file but for layers of other classes.

    timm fits position embeddings to another image size and leaves a classifier of another number
    of classes as it was. Raises: `WeightsError` for weights of another network.
    """
    import timm

    if path is None:
        return timm.create_model(name, pretrained=False, **options)
    # timm itself passes over tensors that it misses.
    check_fits(name, path)
    overlay = {"file": str(path)}
    return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **options)


def standardize(module: nn.Module, name: str) -> None:
    """Let a network see images as its published weights did: by mean and deviation of ImageNet.

    The module still takes [-1, 1] (`augmentation.to_float`); nothing is added to its tensors.
    """
    import timm

    config = timm.get_pretrained_cfg(name)
    mean = (0.485, 0.456, 0.406) if config is None else config.mean
    deviation = (0.229, 0.224, 0.225) if config is None else config.std
    shift = torch.tensor(mean).view(1, 3, 1, 1)
    scale = torch.tensor(deviation).view(1, 3, 1, 1)

    def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        images = inputs[0]
        light = (images * 128 + 127) / 255
        return ((light - shift.to(images)) / scale.to(images), *inputs[1:])

    module.register_forward_pre_hook(hook)


def check_fits(name: str, path: Path) -> None:
    """Raises: `WeightsError` unless the file has every tensor of timm's network but its last layer.

    Files in the layout of a network's authors pass where timm knows how to read it.
    """
    import timm

    try:
        given = load_file(path)
    except SafetensorError as error:
        raise WeightsError(f"{path}: no readable safetensors file ({error})") from error
    model = timm.create_model(name, pretrained=False)
    translate = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if translate is not None:
        given = translate(given, model)
    heads = (timm.get_pretrained_cfg(name) or model.pretrained_cfg).classifier or ()
    heads = tuple(f"{head}." for head in ((heads,) if isinstance(heads, str) else heads))
    own = {k: v for k, v in model.state_dict().items() if not (heads and k.startswith(heads))}
    odd = [k for k, v in own.items() if k not in given or given[k].shape != v.shape]
    if odd:
        raise WeightsError(
            f"{path}: {len(odd)} of the {len(own)} tensors of {name} are not in it or have another "
            f"shape, the first is {odd[0]}; expected the weights of {name}"
        )
