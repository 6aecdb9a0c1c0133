"""Segmenters by name: images to one lesion logit a pixel."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor, nn

from didgen.downstream.classifiers import Built
from didgen.downstream.weights import (
    FROM_SCRATCH,
    LITE0_NAMES,
    WeightsError,
    create,
    describe_lite0,
    fill_encoder,
    find,
    lite0_state,
    standardize,
)

Model = Literal["unet", "unet++", "deeplabv3+", "segformer", "dcsau-net", "xbound-former"]
MODELS: tuple[Model, ...] = get_args(Model)
TITLES = {
    "unet": "U-Net", "unet++": "U-Net++", "deeplabv3+": "DeepLabV3+", "segformer": "SegFormer",
    "dcsau-net": "DCSAU-Net", "xbound-former": "XBound-Former",
}  # fmt: skip
STRIDE = 32


def build_segmenter(
    encoder: str,
    image_size: int,
    decoder_channels: Sequence[int],
    pretrained: bool = True,
    *,
    model: Model = "unet",
    weights: str | None = None,
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
    found = find(encoder, weights)
    if found is not None:
        path, told = found
        fill_encoder(built.encoder, _read(encoder, path), encoder, str(path))
        standardize_encoder(built, model, encoder)
        told = f"encoder: {told}; decoder from scratch"
        return Built(built, name, told, standardized=True)
    if pretrained and weights is None and encoder in LITE0_NAMES:
        fill_encoder(built.encoder, lite0_state(), encoder, describe_lite0())
        return Built(built, name, f"encoder: {describe_lite0()}; decoder from scratch")
    return Built(built, name, FROM_SCRATCH)


def standardize_encoder(network: nn.Module, model: Model, encoder: str) -> None:
    """Let the encoder of a built segmenter see images by ImageNet's mean and deviation."""
    if model == "xbound-former":
        from didgen.downstream.networks.xbound_former import BACKBONE

        standardize(network.backbone, BACKBONE)
    else:
        standardize(network.encoder, encoder)


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
    from safetensors.torch import load_file

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
    found = find(BACKBONE, weights)
    if found is None:
        return Built(model, TITLES["xbound-former"], FROM_SCRATCH, loss)
    path, told = found
    state = create(BACKBONE, path, features_only=True).state_dict()
    model.backbone.load_state_dict(state)
    standardize_encoder(model, "xbound-former", BACKBONE)
    told = f"backbone: {told}; rest from scratch"
    return Built(model, TITLES["xbound-former"], told, loss, standardized=True)


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
