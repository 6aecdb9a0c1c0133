"""Spaces in which sets of images are compared: networks that turn an image into one vector.

Numbers of one space say nothing about those of another, so each names its network, its weights and
how images reach it. All see images squashed to one size by Pillow's bicubic filter with antialias.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from didgen.downstream.weights import (
    LITE0_NAMES,
    create,
    describe_lite0,
    find,
    lite0_state,
    standardize,
)
from didgen.runtime.weights import HUB, WeightsError, check_file, describe_file, fetch
from didgen.settings import extras

INCEPTION_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)
ALEXNET_URL = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
# Where weights that are no timm network's are published, and how their SHA-256 begins.
PUBLISHED = {"inception": (INCEPTION_URL, "6726825d"), "lpips": (ALEXNET_URL, "7be5be79")}
DINOV2 = "vit_small_patch14_dinov2.lvd142m"


@dataclass(frozen=True)
class FeatureSpace:
    """`embed` takes uint8 (B, 3, side, side) and gives float32 (B, dims).

    `distance` and `kernel` are what the Fréchet and the kernel distance in this space are called:
    "FID" and "KID" for InceptionV3 alone.
    """

    name: str
    network: str
    weights: str
    side: int
    dims: int
    distance: str
    kernel: str
    embed: Callable[[Tensor], Tensor]


def open_space(name: str, weights: str | None = None, device: torch.device | None = None) -> (
    FeatureSpace
):  # fmt: skip
    """The space `efficientnet-lite0` (needs no file), `inception` or `dinov2`.

    `weights`: a .safetensors file, or `hub` for the published ones.
    Raises: `WeightsError` for missing or unfit weights, ValueError for another name.
    """
    makers = {"efficientnet-lite0": _lite0, "inception": _inception, "dinov2": _dinov2}
    if name not in makers:
        raise ValueError(f"found the feature space {name!r}, expected one of {list(makers)}")
    return makers[name](weights, device or torch.device("cpu"))


def _lite0(weights: str | None, device: torch.device) -> FeatureSpace:
    import timm

    model = timm.create_model("efficientnet_lite0", num_classes=0)
    model.load_state_dict(lite0_state())
    model.eval().requires_grad_(False).to(device)

    def embed(images: Tensor) -> Tensor:
        return model((images.to(device).float() - 127) / 128).float().cpu()

    return FeatureSpace(
        "efficientnet-lite0", "EfficientNet-Lite0, pooled features", describe_lite0(), 224, 1280,
        "Fréchet distance (EfficientNet-Lite0)", "kernel distance (EfficientNet-Lite0)", embed,
    )  # fmt: skip


def _inception(weights: str | None, device: torch.device) -> FeatureSpace:
    extras.require("torch_fidelity", "the feature space inception")
    from safetensors.torch import load_file
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    if weights == HUB:
        state, origin = _read("inception"), "torch-fidelity's, of TensorFlow 2015"
    else:
        path = _given("inception", weights)
        state, origin = load_file(path), describe_file(path)
    with tempfile.TemporaryDirectory() as folder:
        # The library reads pickles only; this one is written here, from tensors alone.
        path = Path(folder) / "weights.pth"
        torch.save(state, path)
        try:
            model = FeatureExtractorInceptionV3("inception", ["2048"], str(path))
        except RuntimeError as error:
            raise WeightsError(
                f"inception: the weights do not fit ({str(error).splitlines()[0]}); expected those "
                f"of {INCEPTION_URL}"
            ) from error
    model = model.to(device)

    def embed(images: Tensor) -> Tensor:
        return model(images.to(device))[0].float().cpu()

    return FeatureSpace(
        "inception", "InceptionV3 of FID, pooled features", origin, 299, 2048, "FID", "KID", embed
    )


def _dinov2(weights: str | None, device: torch.device) -> FeatureSpace:
    source = find(DINOV2, weights)
    if source is None:
        raise _missing("dinov2", f"of timm's {DINOV2}")
    model = create(DINOV2, source[0], num_classes=0, img_size=224)
    standardize(model, DINOV2)
    model.eval().requires_grad_(False).to(device)

    def embed(images: Tensor) -> Tensor:
        return model((images.to(device).float() - 127) / 128).float().cpu()

    return FeatureSpace(
        "dinov2", "DINOv2 ViT-S/14, class token", source[1], 224, 384, "Fréchet distance (DINOv2)",
        "kernel distance (DINOv2)", embed,
    )  # fmt: skip


def open_lpips(weights: str, device: torch.device | None = None) -> nn.Module:
    """LPIPS 0.1 on AlexNet: takes two batches in [-1, 1], BCHW, gives (B, 1, 1, 1).

    `weights`: a .safetensors file of torchvision's AlexNet, or `hub`.
    """
    from safetensors.torch import load_file

    # The public class fetches AlexNet's weights by itself; this one takes ours.
    from torchmetrics.functional.image.lpips import _LPIPS

    state = _read("lpips") if weights == HUB else load_file(_given("lpips", weights))
    model = _LPIPS(net="alex", pnet_rand=True)
    for key in model.net.state_dict():
        # slice2.3.weight is features.3.weight of torchvision's network.
        source = f"features.{key.split('.', 1)[1]}"
        if source not in state:
            raise WeightsError(f"lpips: the weights have no {source}; expected {ALEXNET_URL}")
        model.net.get_parameter(key).data.copy_(state[source])
    return model.eval().requires_grad_(False).to(device or torch.device("cpu"))


def _given(what: str, weights: str | None) -> Path:
    if weights is None:
        raise _missing(what, f"of {PUBLISHED[what][0]}")
    path = Path(weights)
    check_file(path)
    return path


def _missing(what: str, origin: str) -> WeightsError:
    return WeightsError(
        f"{what}: found no weights, expected a .safetensors file {origin}, or `{HUB}` where the "
        "network is there; the space efficientnet-lite0 needs no file"
    )


def published_file(what: str) -> Path:
    """The published weights of `inception` or `lpips`, in torch's cache or fetched into it.

    Raises: `WeightsError` where they are not there and cannot be fetched.
    """
    return fetch(*PUBLISHED[what])


def _read(what: str) -> dict[str, Tensor]:
    """Published weights, read without running code."""
    return torch.load(published_file(what), weights_only=True, map_location="cpu")


class Lite0Features(nn.Module):
    """Images BCHW in [-1, 1] -> maps at 1/2, 1/4 and 1/8 of their side, weights frozen."""

    def __init__(self, depth: int = 3) -> None:
        import timm

        super().__init__()
        self.body = timm.create_model(
            LITE0_NAMES[0], features_only=True, out_indices=tuple(range(depth))
        )
        state = lite0_state()
        self.body.load_state_dict({name: state[name] for name in self.body.state_dict()})
        self.body.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """The feature maps, finest first."""
        # The weights were trained on (x - 127) / 128 with x in 0..255.
        return self.body((images * 127.5 + 0.5) / 128)

    def train(self, mode: bool = True) -> "Lite0Features":
        """Stay in evaluation mode: running statistics must not move."""
        return super().train(False)
