"""Augmentation keeps image and mask together, keeps its range and repeats with its seed."""

import torch

from didgen.downstream.augmentation import augment, jitter, to_float, turn


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_to_float_is_the_scaling_of_the_weights():
    found = to_float(torch.tensor([0, 127, 255], dtype=torch.uint8))
    assert found.tolist() == [-127 / 128, 0, 1]


def test_masks_turn_with_their_images():
    images = torch.randint(0, 256, (64, 3, 8, 8), dtype=torch.uint8)
    masks = images[:, :1].clone()
    turned, turned_masks = turn(images, masks, generator())
    assert torch.equal(turned[:, :1], turned_masks)
    assert not torch.equal(turned, images)


def test_all_eight_symmetries_occur_and_only_those():
    image = torch.arange(4, dtype=torch.uint8).view(1, 1, 2, 2).expand(400, 3, 2, 2)
    turned, _ = turn(image, None, generator())
    seen = {tuple(x.flatten().tolist()) for x in turned[:, 0]}
    assert len(seen) == 8


def test_images_that_are_not_square_keep_their_shape():
    images = torch.randint(0, 256, (32, 3, 4, 6), dtype=torch.uint8)
    turned, _ = turn(images, None, generator())
    assert turned.shape == images.shape
    assert len({tuple(x.flatten().tolist()) for x in turned}) == 32


def test_the_input_is_left_as_it_was():
    images = torch.randint(0, 256, (16, 3, 8, 8), dtype=torch.uint8)
    before = images.clone()
    augment(images, images[:, :1], generator())
    assert torch.equal(images, before)


def test_jitter_stays_in_range_and_differs_between_images():
    images = torch.rand(1, 3, 8, 8).expand(6, 3, 8, 8) * 2 - 1
    found = jitter(images, generator())
    assert found.min() >= -1
    assert found.max() <= 1
    assert not torch.equal(found[0], found[1])


def test_black_stays_black_under_brightness():
    # Contrast pulls a uniform image nowhere and brightness scales light, which black has none of.
    assert torch.allclose(jitter(-torch.ones(4, 3, 4, 4), generator()), -torch.ones(4, 3, 4, 4))


def test_the_same_seed_gives_the_same_batch():
    images = torch.randint(0, 256, (8, 3, 8, 8), dtype=torch.uint8)
    first, second = (augment(images, None, generator(3))[0] for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, augment(images, None, generator(4))[0])


def test_the_memory_layout_of_decoded_files_is_kept():
    files = torch.randint(0, 256, (8, 16, 16, 3), dtype=torch.uint8)
    found, _ = augment(files.permute(0, 3, 1, 2), None, generator())
    assert found.is_contiguous(memory_format=torch.channels_last)
