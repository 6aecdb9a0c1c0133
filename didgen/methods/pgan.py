"""PGAN: a GAN of each diagnosis that grows from 4 px to the side of its images.

Source: Karras, Aila, Laine and Lehtinen 2018 (ICLR, Progressive growing of GANs), in the sizes and
the schedule of pytorch_GAN_zoo. At 256 px, with the layers to and from RGB of all sides, the
generator has 23,051,989 parameters and the discriminator 23,052,353.

Shapes: B images, images in [-1, 1] (B, 3, s, s) for a side of s px. A level is a side: 0 is 4 px,
1 is 8 px, and so on; `share`, in (0, 1], is how far the newest level has faded in.
"""

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from didgen.methods.gan import (
    ClassSynthesizer,
    check_power_of_two,
    draw_batch,
    draw_normal,
    load_models,
    scaled,
    size_of,
    squared_gradients,
    step_generator,
    train_classes,
)
from didgen.settings.pgan import Settings
from didgen.settings.train import Config
from didgen.training.optimization import Average, update
from didgen.training.state import Parts, Row

# Channels at each side, px; the latents are as many as the first.
CHANNELS = {4: 512, 8: 512, 16: 512, 32: 512, 64: 256, 128: 128, 256: 64, 512: 32, 1024: 16}
SLOPE = 0.2
EPSILON = 1e-8
# Images whose deviation is measured together.
GROUP = 4
BETAS = (0.0, 0.99)
# Weights of the gradient penalty and of the drift of real scores.
PENALTY = 10.0
DRIFT = 1e-3
DECAY = 0.999
DEPARTURES = [
    "Losses are means over a batch, as in the paper; pytorch_GAN_zoo adds them up.",
    "New layers fade in with every step; in pytorch_GAN_zoo by 600 jumps.",
    "The number of images a step is the same at all sides; in the paper it falls.",
    "Averaged weights follow faster in the first 9000 steps of a side, so that short trainings are "
    "no average of their start; in the sources the decay is 0.999 throughout.",
]


def normalize_pixels(maps: Tensor) -> Tensor:
    """Each pixel's channels over their root mean square; maps (B, C, ...)."""
    return maps * (maps.square().mean(1, keepdim=True) + EPSILON).rsqrt()


def append_deviation(maps: Tensor) -> Tensor:
    """The maps (B, C, h, w) and one more: the deviation among images, as one number a group.

    B is a multiple of 4, the size of a group.
    """
    groups = maps.unflatten(0, (GROUP, -1))
    deviation = (groups.var(0, correction=0) + EPSILON).sqrt().mean((1, 2, 3))
    own = deviation.repeat(GROUP).view(-1, 1, 1, 1).expand(-1, 1, *maps.shape[2:])
    return torch.cat([maps, own], 1)


def critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Wasserstein: scores of made images less those of real ones, in the mean."""
    return fake.mean() - real.mean()


def drift(real: Tensor) -> Tensor:
    """What keeps scores near 0: 0.001 times the mean of their squares."""
    return DRIFT * real.square().mean()


def gradient_penalty(scores: Tensor, images: Tensor) -> Tensor:
    """10 times the mean squared distance of the gradients' lengths from 1 (WGAN-GP)."""
    # The root has no gradient at 0.
    lengths = (squared_gradients(scores, images) + EPSILON).sqrt()
    return PENALTY * (lengths - 1).square().mean()


def between(real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    """Images on the lines from made to real ones; share of the real: (B, 1, 1, 1)."""
    return share * real + (1 - share) * fake


def enlarge(images: Tensor) -> Tensor:
    """Twice the side, each pixel repeated."""
    return F.interpolate(images, scale_factor=2, mode="nearest")


def real_images(images: Tensor, side: int, share: float) -> Tensor:
    """Real images at a level: of its side, and as sharp as the newest layers have faded in."""
    images = F.avg_pool2d(images, images.shape[-1] // side)
    if share == 1:
        return images
    return torch.lerp(enlarge(F.avg_pool2d(images, 2)), images, share)


def stage_of(step: int, first: int, later: int, fade: float) -> tuple[int, int, float]:
    """Level of a step, counted from 0, its number in the level, and the newest layers' share.

    first, later: steps of level 0 and of each other. fade: the share of these in which layers fade
    in, the last of them with a share of 1.
    """
    if step < first:
        return 0, step, 1.0
    level, number = divmod(step - first, later)
    return level + 1, number, min(1.0, (number + 1) / max(1.0, fade * later))


class Equalized(nn.Module):
    """A convolution or linear layer whose weights are scaled when it is used.

    They are drawn standard normal and multiplied by sqrt(2 / inputs), so that all learn at one
    rate; the bias is not.
    """

    def __init__(self, before: int, after: int, kernel: int) -> None:
        """kernel: side of a convolution, px; 0: a linear layer."""
        super().__init__()
        window = (kernel, kernel) if kernel else ()
        self.weight = nn.Parameter(torch.randn(after, before, *window))
        self.bias = nn.Parameter(torch.zeros(after))
        self.scale = math.sqrt(2 / (before * math.prod(window)))

    def forward(self, values: Tensor) -> Tensor:
        """(B, before, ...) -> (B, after, ...), the side kept."""
        weight = self.weight * self.scale
        if weight.ndim == 2:
            return F.linear(values, weight, self.bias)
        return F.conv2d(values, weight, self.bias, padding=weight.shape[-1] // 2)


def activate(maps: Tensor) -> Tensor:
    """The activation of both networks."""
    return F.leaky_relu(maps, SLOPE)


class Generator(nn.Module):
    """Latents (B, Z), standard normal -> images in about [-1, 1]."""

    def __init__(self, side: int, channel_share: float) -> None:
        super().__init__()
        channels = channels_of(side, channel_share)
        self.latent = channels[0]
        self.format = Equalized(channels[0], 16 * channels[0], 0)
        self.levels = nn.ModuleList([nn.ModuleList([Equalized(channels[0], channels[0], 3)])])
        for before, after in zip(channels, channels[1:], strict=False):
            pair = [Equalized(before, after, 3), Equalized(after, after, 3)]
            self.levels.append(nn.ModuleList(pair))
        self.to_rgb = nn.ModuleList(Equalized(count, 3, 1) for count in channels)

    def forward(self, latents: Tensor, level: int, share: float) -> Tensor:
        """Images of the level's side."""
        maps = activate(self.format(normalize_pixels(latents)))
        maps = normalize_pixels(maps.unflatten(1, (-1, 4, 4)))
        below = maps
        for number, layers in enumerate(self.levels[: level + 1]):
            below = maps
            maps = enlarge(maps) if number else maps
            for layer in layers:
                maps = normalize_pixels(activate(layer(maps)))
        images = self.to_rgb[level](maps)
        if share == 1 or level == 0:
            return images
        return torch.lerp(enlarge(self.to_rgb[level - 1](below)), images, share)


class Discriminator(nn.Module):
    """Images of a level's side -> scores (B, 1), without bounds."""

    def __init__(self, side: int, channel_share: float) -> None:
        super().__init__()
        channels = channels_of(side, channel_share)
        self.from_rgb = nn.ModuleList(Equalized(3, count, 1) for count in channels)
        self.levels = nn.ModuleList([nn.ModuleList([Equalized(channels[0] + 1, channels[0], 3)])])
        for after, before in zip(channels, channels[1:], strict=False):
            pair = [Equalized(before, before, 3), Equalized(before, after, 3)]
            self.levels.append(nn.ModuleList(pair))
        self.hidden = Equalized(16 * channels[0], channels[0], 0)
        self.score = Equalized(channels[0], 1, 0)

    def forward(self, images: Tensor, level: int, share: float) -> Tensor:
        """Scores; the number of images is a multiple of 4."""
        maps = activate(self.from_rgb[level](images))
        for number in range(level, 0, -1):
            for layer in self.levels[number]:
                maps = activate(layer(maps))
            maps = F.avg_pool2d(maps, 2)
            if number == level and share < 1:
                below = activate(self.from_rgb[level - 1](F.avg_pool2d(images, 2)))
                maps = torch.lerp(below, maps, share)
        maps = append_deviation(maps)
        for layer in self.levels[0]:
            maps = activate(layer(maps))
        return self.score(activate(self.hidden(maps.flatten(1))))


def channels_of(side: int, channel_share: float) -> list[int]:
    """Channels of each level up to a side, px."""
    return [scaled(count, channel_share) for at, count in CHANNELS.items() if at <= side]


class PganTraining:
    """The model of one diagnosis in training; images: uint8 (N, 3, S, S)."""

    def __init__(
        self, images: np.ndarray, settings: Settings, seed: int, device: torch.device
    ) -> None:
        side = images.shape[-1]
        check_power_of_two(side, 8, max(CHANNELS))
        self._pictures, self._settings, self._seed, self._device = images, settings, seed, device
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self._generator = Generator(side, settings.channel_share).to(device)
            self._discriminator = Discriminator(side, settings.channel_share).to(device)
        networks = {"generator": self._generator, "discriminator": self._discriminator}
        self._optimizers = {
            name: torch.optim.Adam(network.parameters(), betas=BETAS, fused=True)
            for name, network in networks.items()
        }
        self._average = Average(list(self._generator.parameters()), DECAY)
        optimizers = {f"{name}-optimizer": each for name, each in self._optimizers.items()}
        self.parts: Parts = {**networks, **optimizers, "average": self._average}
        self.steps = settings.first_steps + settings.level_steps * (len(self._generator.levels) - 1)
        self.images, self.parameters = settings.training_batch, size_of(*networks.values())

    def step(self, number: int) -> Row:
        """The discriminator's turn, then the generator's. Raises: `NonFiniteLoss`."""
        settings, device = self._settings, self._device
        draws = step_generator(self._seed, number)
        level, at, share = stage_of(
            number, settings.first_steps, settings.level_steps, settings.fade
        )
        if at == 0:
            # Each level starts with fresh moments and, below, a fresh average.
            for optimizer in self._optimizers.values():
                optimizer.state.clear()
        options = {"learning_rate": settings.learning_rate, "max_norm": math.inf}
        batch = draw_batch(
            self._pictures, self.images, number, self._seed, draws, flips=False, device=device
        )
        real = real_images(batch * 2 - 1, 4 << level, share)
        with torch.no_grad():
            fake = self._generator(self._latents(draws), level, share)
        place = torch.rand(self.images, 1, 1, 1, generator=draws).to(device)
        mixed = between(real, fake, place).requires_grad_()
        of_real = self._discriminator(real, level, share)
        of_fake = self._discriminator(fake, level, share)
        losses = {
            "loss_discriminator": critic_loss(of_real, of_fake),
            "loss_penalty": gradient_penalty(self._discriminator(mixed, level, share), mixed),
            "loss_drift": drift(of_real),
        }
        sum(losses.values(), torch.zeros((), device=device)).backward(
            inputs=list(self._discriminator.parameters())
        )
        row = update(self._optimizers["discriminator"], losses, **options)
        made = self._generator(self._latents(draws), level, share)
        loss = -self._discriminator(made, level, share).mean()
        loss.backward(inputs=list(self._generator.parameters()))
        row |= update(self._optimizers["generator"], {"loss_generator": loss}, **options)
        self._average.update(at + 1)
        return row | {"side": 4 << level, "share": share}

    def _latents(self, draws: torch.Generator) -> Tensor:
        count = self._generator.latent
        return torch.randn(self.images, count, generator=draws).to(self._device)

    def generator(self) -> nn.Module:
        """The generator with the averaged weights."""
        self._average.swap()
        return self._generator


def train(data: pd.DataFrame, config: Config) -> None:
    """Write a generator of each diagnosis. Raises: as `gan.train_classes`."""
    train_classes(data, config, PganTraining, DEPARTURES, free=set())


def load(folder: Path, config: Any, device: str) -> ClassSynthesizer:
    """The synthesizer of a trained folder. Raises: `ValueError` for one that cannot be used."""
    loaded = load_models(
        folder, Settings, lambda own, side: Generator(side, own.channel_share), device
    )
    return ClassSynthesizer(loaded=loaded, make=functools.partial(_make, device))


def _make(device: str, generator: Generator, seeds: list[int]) -> Tensor:
    latents = draw_normal(seeds, generator.latent).to(device)
    return (generator(latents, len(generator.levels) - 1, 1.0) + 1) / 2
