"""Training-time augmentation on tensors: one policy for every arm and both tasks.

Shapes: B batch, H and W pixels. Images enter as uint8 (B, 3, H, W) and leave as float32 in [-1, 1].
"""

import torch

BRIGHTNESS = 0.15
CONTRAST = 0.15
SATURATION = 0.15
_LUMA = (0.299, 0.587, 0.114)


def to_float(images: torch.Tensor) -> torch.Tensor:
    """Scale uint8 images to floats, (x - 127) / 128, the input of the EfficientNet-Lite weights."""
    return (images.float() - 127.0) / 128.0


def augment(
    images: torch.Tensor, masks: torch.Tensor | None, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Turn and mirror images with their masks, and vary the colors of the images.

    Shapes: uint8 (B, 3, H, W) and (B, 1, H, W) or None; images return as float32 in [-1, 1].
    """
    images, masks = turn(images, masks, generator)
    return jitter(to_float(images), generator), masks


def turn(
    images: torch.Tensor, masks: torch.Tensor | None, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Give each image one of the eight symmetries of the square (four, if it is not square)."""
    square = images.shape[-1] == images.shape[-2]
    choice = torch.randint(8, (len(images),), generator=generator)
    if not square:
        choice = choice // 2 * 2
    images = images.clone()
    masks = None if masks is None else masks.clone()
    for k in range(1, 8):
        rows = (choice == k).nonzero()[:, 0].to(images.device)
        if len(rows):
            images[rows] = _symmetry(images[rows], k)
            if masks is not None:
                masks[rows] = _symmetry(masks[rows], k)
    return images, masks


def _symmetry(batch: torch.Tensor, k: int) -> torch.Tensor:
    if k & 2:
        batch = batch.flip(-1)
    if k & 4:
        batch = batch.flip(-2)
    return batch.transpose(-1, -2) if k & 1 else batch


def jitter(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Vary brightness, contrast and saturation of each image by up to 15 %, clamped to [-1, 1]."""

    def factor(spread: float) -> torch.Tensor:
        drawn = torch.rand(len(images), 1, 1, 1, generator=generator)
        return 1 + spread * (2 * drawn - 1).to(images.device)

    # Brightness scales light, whose zero is black, not the middle of the range.
    images = (images + 1) * factor(BRIGHTNESS) - 1
    mean = images.mean((1, 2, 3), keepdim=True)
    images = mean + (images - mean) * factor(CONTRAST)
    luma = torch.tensor(_LUMA, device=images.device).view(1, 3, 1, 1)
    gray = (images * luma).sum(1, keepdim=True)
    images = gray + (images - gray) * factor(SATURATION)
    return images.clamp(-1, 1)
