"""Classic augmentation, stronger than what every arm has: the arm `classic`.

It comes before the common augmentation, in uint8, and takes torch's random state.
Shapes: images uint8 (B, 3, H, W), masks uint8 (B, 1, H, W) in {0, 1}.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor

# Cubuk et al. 2020: two operations an image, magnitude 9 of 30.
OPERATIONS = 2
MAGNITUDE = 9


@cache
def _rand_augment() -> Any:
    from torchvision.transforms import v2

    return v2.RandAugment(
        OPERATIONS, MAGNITUDE, interpolation=v2.InterpolationMode.BILINEAR, fill=127
    )


@cache
def _with_masks() -> Any:
    """RandAugment's kinds of change for pairs, which torchvision's own does not take."""
    from torchvision.transforms import v2

    bilinear = v2.InterpolationMode.BILINEAR
    return v2.Compose([
        v2.RandomAffine(
            30, translate=(0.1, 0.1), scale=(0.8, 1.2), shear=10, interpolation=bilinear
        ),
        v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.03),
        v2.RandomApply([v2.GaussianBlur(5, (0.5, 1.5))], p=0.2),
    ])  # fmt: skip


def classic(images: Tensor, masks: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """RandAugment on images; with masks, moves, colors and blur that keep both together."""
    from torchvision import tv_tensors

    if masks is None:
        transform = _rand_augment()
        return _stacked([transform(image.contiguous()) for image in images]), None
    transform = _with_masks()
    pairs = [
        transform(tv_tensors.Image(image.contiguous()), tv_tensors.Mask(mask))
        for image, mask in zip(images, masks, strict=True)
    ]
    moved = torch.stack([mask.as_subclass(Tensor) for _, mask in pairs])
    return _stacked([image.as_subclass(Tensor) for image, _ in pairs]), moved


def _stacked(images: list[Tensor]) -> Tensor:
    """One batch, channels last as the batches of the data set are."""
    return torch.stack(images).contiguous(memory_format=torch.channels_last)
