"""Classic augmentation: images vary more, masks move with them, and it repeats with its seed."""

import torch

from didgen.downstream.classic import classic


def batch(n: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """A bright square on black, and its mask."""
    masks = torch.zeros(n, 1, 32, 32, dtype=torch.uint8)
    masks[:, :, 8:20, 10:24] = 1
    return masks.expand(-1, 3, -1, -1) * 200, masks


def test_masks_move_with_their_images():
    torch.manual_seed(0)
    images, masks = batch(16)
    moved, moved_masks = classic(images, masks)
    assert moved.shape == images.shape and moved.dtype == torch.uint8
    assert set(moved_masks.unique().tolist()) == {0, 1}
    assert not torch.equal(moved_masks, masks)
    bright = moved.float().mean(1, keepdim=True) > 60
    both = (bright & moved_masks.bool()).sum((1, 2, 3))
    either = (bright | moved_masks.bool()).sum((1, 2, 3))
    assert (both / either).min() > 0.75


def test_images_alone_take_randaugment():
    images = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8)
    torch.manual_seed(1)
    first, none = classic(images, None)
    torch.manual_seed(1)
    again, _ = classic(images, None)
    assert none is None and first.dtype == torch.uint8 and first.shape == images.shape
    assert torch.equal(first, again)
    changed = (first != images).flatten(1).any(1)
    assert changed.sum() > 8
    assert first.is_contiguous(memory_format=torch.channels_last)
