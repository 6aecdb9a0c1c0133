"""Segmenters by name: images to one lesion logit per pixel; and their files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from safetensors.torch import load_file
from torch import Tensor, nn

from didgen.downstream.classifiers import Built
from didgen.downstream.saved import load_network, save_network
from didgen.downstream.weights import (
    FROM_SCRATCH,
    LITE0_NAMES,
    create,
    describe_lite0,
    fill_encoder,
    find,
    lite0_state,
    standardize,
)
from didgen.runtime.weights import WeightsError
from didgen.settings.segment import Model

MODELS: tuple[Model, ...] = get_args(Model)
TITLES = {
    "unet": "U-Net", "unet++": "U-Net++", "deeplabv3+": "DeepLabV3+", "segformer": "SegFormer",
    "dcsau-net": "DCSAU-Net", "xbound-former": "XBound-Former",
}  # fmt: skip
STRIDE = 32
# Where a file says how to build its network again.
CARD = "segmenter"


def build_segmenter(
    encoder: str,
    image_size: int,
    decoder_channels: Sequence[int],
    pretrained: bool,
    *,
    model: Model,
    weights: str | None,
) -> Built:
    """A segmenter; shapes (B, 3, H, W) -> (B, 1, H, W).

    U-Net, U-Net++, DeepLabV3+ and SegFormer stand on a timm encoder, or on the `mit_b0` to `mit_b5`
    of SegFormer's authors; `decoder_channels` are those of the first two. DCSAU-Net and
    XBound-Former have an encoder of their own. If `pretrained`, the encoder starts from `weights`,
    a .safetensors file or `hub`; without them EfficientNet-Lite0 from its packaged ImageNet weights
    and every other from scratch. Raises: ValueError for an unknown name, a side that is not a
    multiple of 32, other than five decoder stages, or unfit weights.
    """
    if model not in MODELS:
        raise ValueError(f"found segmenter {model!r}, expected one of {', '.join(MODELS)}")
    if image_size % STRIDE:
        raise ValueError(
            f"found images of side {image_size} px, expected a multiple of {STRIDE}; "
            "set image_size of the segment section"
        )
    weights = weights if pretrained else None
    if model == "dcsau-net":
        from didgen.downstream.networks.dcsau_net import DCSAUNet

        if weights is not None:
            raise WeightsError("DCSAU-Net has no pretrained weights; leave `weights` out")
        return Built(DCSAUNet(), TITLES[model], FROM_SCRATCH)
    if model == "xbound-former":
        return _xbound_former(weights)
    if len(decoder_channels) != 5:
        raise ValueError(
            f"found {len(decoder_channels)} decoder_channels, expected 5, one for each halving"
        )
    built = _over_encoder(model, encoder, tuple(decoder_channels))
    name = f"{TITLES[model]} over {encoder}"
    source = find(encoder, weights)
    if source is not None:
        path, origin = source
        fill_encoder(built.encoder, _read(encoder, path), encoder, str(path))
        standardize_encoder(built, model, encoder)
        origin = f"encoder: {origin}; decoder from scratch"
        return Built(built, name, origin, standardized=True)
    if pretrained and weights is None and encoder in LITE0_NAMES:
        fill_encoder(built.encoder, lite0_state(), encoder, describe_lite0())
        return Built(built, name, f"encoder: {describe_lite0()}; decoder from scratch")
    return Built(built, name, FROM_SCRATCH)


def pretrained_part(model: Model, encoder: str) -> str | None:
    """timm's name of the part of a segmenter that may start from pretrained weights, if any has."""
    if model == "xbound-former":
        from didgen.downstream.networks.xbound_former import BACKBONE

        return BACKBONE
    return None if model == "dcsau-net" else encoder


def standardize_encoder(network: nn.Module, model: Model, encoder: str) -> None:
    """Let the encoder of a built segmenter see images by ImageNet's mean and deviation."""
    part = network.backbone if model == "xbound-former" else network.encoder
    name = pretrained_part(model, encoder)
    assert name is not None  # DCSAU-Net has no such encoder
    standardize(part, name)


def _over_encoder(model: str, encoder: str, channels: tuple[int, ...]) -> nn.Module:
    import segmentation_models_pytorch as smp
    import timm

    if encoder not in smp.encoders.get_encoder_names() or not encoder.startswith("mit_"):
        if not timm.is_model(encoder):
            raise ValueError(f"timm has no model {encoder!r}; see timm.list_models()")
        encoder = f"tu-{encoder}"
    makers: dict[str, Callable[..., nn.Module]] = {
        "unet": smp.Unet,
        "unet++": smp.UnetPlusPlus,
        "deeplabv3+": smp.DeepLabV3Plus,
        "segformer": smp.Segformer,
    }
    options: dict[str, Any] = {"encoder_weights": None}
    if model in ("unet", "unet++"):
        options["decoder_channels"] = channels
    return makers[model](encoder, **options)


def _read(name: str, path: Path) -> dict[str, Tensor]:
    """A file of weights under timm's names, or, of a `mit_` encoder, under its own."""
    if name.startswith("mit_"):
        return load_file(path)
    return create(name, path, features_only=True).state_dict()


def _xbound_former(weights: str | None) -> Built:
    from didgen.downstream.networks.xbound_former import BACKBONE, XBoundFormer, xbound_loss

    def loss(output: Any, masks: Tensor) -> Tensor:
        # In evaluation the network gives its main map alone.
        both = isinstance(output, Tensor)
        return segmentation_loss(output, masks) if both else xbound_loss(output, masks)

    model = XBoundFormer()
    source = find(BACKBONE, weights)
    if source is None:
        return Built(model, TITLES["xbound-former"], FROM_SCRATCH, loss)
    path, origin = source
    state = create(BACKBONE, path, features_only=True).state_dict()
    model.backbone.load_state_dict(state)
    standardize_encoder(model, "xbound-former", BACKBONE)
    origin = f"backbone: {origin}; rest from scratch"
    return Built(model, TITLES["xbound-former"], origin, loss, standardized=True)


def segmentation_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Binary cross-entropy plus 1 - soft Dice of each image, averaged over the batch.

    Shapes: (B, 1, H, W) logits, (B, 1, H, W) masks in {0, 1}.
    """
    logits, masks = logits.float(), masks.float()
    entropy = nn.functional.binary_cross_entropy_with_logits(logits, masks)
    lesion = logits.sigmoid()
    overlap = (lesion * masks).sum((1, 2, 3))
    total = lesion.sum((1, 2, 3)) + masks.sum((1, 2, 3))
    # One pixel in both terms keeps the ratio defined when both masks are empty.
    return entropy + (1 - (2 * overlap + 1) / (total + 1)).mean()


@dataclass(frozen=True)
class SegmenterCard:
    """How a segmenter was built and trained.

    `image_size`: side in px at which it sees images. `val_dice`: its best mean Dice on validation
    images, which also chose the step it was kept at. `standardized`: its encoder sees images by
    ImageNet's mean and deviation.
    """

    encoder: str
    decoder_channels: tuple[int, ...]
    image_size: int
    arm: str
    seed: int
    n_train: int
    val_dice: float
    model: Model = "unet"
    standardized: bool = False


def save_segmenter(path: Path, model: nn.Module, card: SegmenterCard) -> None:
    """Write weights and card into one file."""
    save_network(path, model, CARD, card)


def load_segmenter(path: Path) -> tuple[nn.Module, SegmenterCard]:
    """The network in evaluation mode on the CPU, frozen, and its card.

    Raises: `SavedNetworkError` when the file is missing or is something else.
    """
    model, card = load_network(path, CARD, "segment", _from_card)
    return model.requires_grad_(False), card


def _from_card(values: dict[str, Any]) -> tuple[nn.Module, tuple[nn.Module, SegmenterCard]]:
    card = SegmenterCard(**values | {"decoder_channels": tuple(values["decoder_channels"])})
    model = build_segmenter(
        card.encoder,
        card.image_size,
        card.decoder_channels,
        pretrained=False,
        model=card.model,
        weights=None,
    ).model
    if card.standardized:
        standardize_encoder(model, card.model, card.encoder)
    return model, (model, card)
