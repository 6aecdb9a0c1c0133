"""What the adversarial methods share: batches, gradients, what is refused."""

import numpy as np
import pytest
import torch

from didgen.methods.gan import (
    check_power_of_two,
    draw_batch,
    draw_normal,
    read_images,
    squared_gradients,
    step_generator,
    to_pixels,
)
from didgen.runtime.files import write_png
from tests.methods.gan_runs import images

CPU = torch.device("cpu")


def test_a_batch_follows_from_seed_and_step_and_mirrors_half(tmp_path):
    stack = np.arange(6 * 3 * 2 * 2, dtype=np.uint8).reshape(6, 3, 2, 2)

    def draw(step, flips):
        return draw_batch(
            stack, 4, step, 1, step_generator(1, step), flips=flips, device=torch.device("cpu")
        )

    assert torch.equal(draw(3, True), draw(3, True))
    plain = [draw(step, False) for step in range(3)]
    # Two epochs of six images: each is seen twice.
    seen = torch.cat(plain)[:, 0, 0, 0] * 255
    assert sorted(seen.round().int().tolist()) == sorted([*stack[:, 0, 0, 0].tolist()] * 2)
    mirrored = sum(
        int((draw(step, True) != draw(step, False)).flatten(1).any(1).sum()) for step in range(50)
    )
    assert 70 < mirrored < 130


def test_squared_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(16, 1)
    ).double()
    pictures = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    found = squared_gradients(network(pictures), pictures)
    with torch.no_grad():
        for number in range(2):
            total = 0.0
            for place in np.ndindex(3, 4, 4):
                step = torch.zeros_like(pictures)
                step[(number, *place)] = 1e-5
                change = network(pictures + step) - network(pictures - step)
                total += float(change[number] / 2e-5) ** 2
            assert float(found[number]) == pytest.approx(total, rel=1e-6)


def test_the_penalty_reaches_the_network():
    weight = torch.tensor(3.0, requires_grad=True)
    pictures = torch.ones(2, 3, 2, 2, requires_grad=True)
    squares = squared_gradients((weight * pictures).sum((1, 2, 3))[:, None], pictures)
    assert squares.tolist() == [108.0, 108.0]  # 12 pixels, 3 squared each
    squares.sum().backward()
    assert weight.grad.item() == 2 * 2 * 12 * 3


def test_latents_are_of_their_own_seed_alone():
    together, alone = draw_normal([1, 2], 5), draw_normal([2], 5)
    assert torch.equal(together[1], alone[0]) and not torch.equal(together[0], together[1])


def test_pixels_are_rounded_and_kept_within_bounds():
    values = torch.tensor([-1.0, 0.0, 0.4999, 1.0, 2.0]).view(5, 1, 1, 1).expand(5, 3, 1, 1)
    assert to_pixels(values)[:, 0, 0, 0].tolist() == [0, 0, 127, 255, 255]


@pytest.mark.parametrize("side", [4, 48, 2048])
def test_sides_that_do_not_halve_are_refused(side):
    with pytest.raises(ValueError, match=f"found images of {side} px, expected a power of two"):
        check_power_of_two(side, 8, 1024)


def test_images_of_two_sizes_are_refused(tmp_path):
    data = images(tmp_path, MEL=3)
    assert read_images(data["image"].tolist()).shape == (3, 3, 32, 32)
    write_png(data["image"][2], np.zeros((32, 40, 3), np.uint8))
    with pytest.raises(ValueError, match=r"MEL2.png: found 40x32 px, expected 32x32 px"):
        read_images(data["image"].tolist())
