"""Segmenters from segmentation_models_pytorch: images to one lesion logit a pixel."""

from collections.abc import Sequence

import torch
from torch import nn

from didgen.downstream.classifiers import FROM_SCRATCH, Built
from didgen.downstream.weights import LITE0_NAMES, describe_lite0, fill_encoder

STRIDE = 32


def build_segmenter(
    encoder: str, image_size: int, decoder_channels: Sequence[int], pretrained: bool = True
) -> Built:
    """A U-Net over a timm encoder; shapes (B, 3, H, W) -> (B, 1, H, W).

    EfficientNet-Lite0 starts from its packaged ImageNet weights if `pretrained`; every other
    encoder starts from scratch. Raises: ValueError for an unknown encoder, a side that is not a
    multiple of 32, or other than five decoder stages.
    """
    import segmentation_models_pytorch as smp
    import timm

    if not timm.is_model(encoder):
        raise ValueError(f"timm has no model {encoder!r}; see timm.list_models()")
    if image_size % STRIDE:
        raise ValueError(
            f"found images of side {image_size} px, expected a multiple of {STRIDE}; "
            "set image_size of the segment section"
        )
    if len(decoder_channels) != 5:
        raise ValueError(
            f"found {len(decoder_channels)} decoder_channels, expected 5, one for each halving"
        )
    model = smp.Unet(
        f"tu-{encoder}", encoder_weights=None, decoder_channels=tuple(decoder_channels)
    )
    name = f"U-Net over {encoder}"
    if pretrained and encoder in LITE0_NAMES:
        fill_encoder(model.encoder, encoder)
        return Built(model, name, f"encoder: {describe_lite0()}; decoder from scratch")
    return Built(model, name, FROM_SCRATCH)


def segmentation_loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
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
