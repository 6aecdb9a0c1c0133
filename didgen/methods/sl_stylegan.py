"""SL-StyleGAN: a small style-based GAN of each diagnosis.

Source: Qin, Liu, Zhu and Xue 2020 (Computer Methods and Programs in Biomedicine 195, 105568), by
their public code. Of StyleGAN it keeps the mapping network, the constant input, noise and AdaIN;
it has one latent an image, a single noise image whose centre the coarser levels receive, and no
growing. At 256 px the generator has 9,266,195 parameters and the discriminator 2,404,113.

Shapes: B images, S px a side, images in [0, 1] (B, 3, S, S).
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
from didgen.methods.protocol import derive_seed
from didgen.settings.sl_stylegan import Settings
from didgen.settings.train import Config
from didgen.training.optimization import update
from didgen.training.state import Parts, Row

LATENT = 100
STYLE = 512
MAPPING_LAYERS = 8
# Channels at each side, px. The source ends at 256 px.
GENERATOR = {4: 512, 8: 256, 16: 192, 32: 128, 64: 64, 128: 32, 256: 16, 512: 8, 1024: 4}
# Of the block after which maps have this side.
DISCRIMINATOR = {4: 256, 8: 192, 16: 128, 32: 64, 64: 32, 128: 16, 256: 8, 512: 4}
HIDDEN = 128
DROPOUT = 0.6
SLOPE = 0.01
MAPPING_SLOPE = 0.2
EPSILON = 1e-8
# Adam's, and what the learning rate falls by: lr / (1 + DECAY * step).
BETAS = (0.0, 0.99)
DECAY = 1e-5
# Weight of the R1 penalty.
R1 = 5.0
DEPARTURES = [
    "Images keep their colours; the source stretches each to the full range when it writes it.",
    "The generator's turn has latents of its own, and all layers start as He et al. 2015 have it; "
    "the source leaves both open.",
]


def adapt(maps: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """AdaIN: each map of each image gets the standard deviation `scale` and the mean `shift`.

    maps: (B, C, h, w); scale and shift: (B, C).
    """
    variance, mean = torch.var_mean(maps, (2, 3), correction=0, keepdim=True)
    # The root has no gradient at 0, where a map is constant.
    deviation = variance.clamp_min(EPSILON**2).sqrt() + EPSILON
    return (maps - mean) / deviation * scale[..., None, None] + shift[..., None, None]


def centre(noise: Tensor, side: int) -> Tensor:
    """The middle `side` x `side` px of the noise (B, 1, S, S)."""
    first = (noise.shape[-1] - side) // 2
    return noise[..., first : first + side, first : first + side]


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Least squares: scores of real images towards 1, of made ones towards -1."""
    return (real - 1).square().mean() + (fake + 1).square().mean()


def generator_loss(fake: Tensor) -> Tensor:
    """Least squares: scores of made images towards 0, midway between the discriminator's aims."""
    return fake.square().mean()


def r1_penalty(scores: Tensor, images: Tensor) -> Tensor:
    """5 times the squared length of the gradient of real images' scores, the batch's mean."""
    return R1 * squared_gradients(scores, images).mean()


def learning_rate(first: float, step: int) -> float:
    """The rate of a step, counted from 0."""
    return first / (1 + DECAY * step)


class Layer(nn.Module):
    """Convolution, noise, AdaIN, activation."""

    def __init__(self, before: int, after: int, style: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(before, after, 3, padding=1)
        self.noise = nn.Conv2d(1, after, 1)
        self.scale = nn.Linear(style, after)
        self.shift = nn.Linear(style, after)

    def forward(self, maps: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        """maps (B, before, h, h), style (B, D), noise (B, 1, S, S) -> (B, after, h, h)."""
        maps = self.convolution(maps)
        maps = maps + self.noise(centre(noise, maps.shape[-1]))
        return F.leaky_relu(adapt(maps, self.scale(style), self.shift(style)), SLOPE)


class Generator(nn.Module):
    """Latents (B, 100) and noise (B, 1, S, S), both standard normal -> images in [0, 1]."""

    def __init__(self, side: int, channel_share: float) -> None:
        super().__init__()
        style = scaled(STYLE, channel_share)
        channels = [scaled(n, channel_share) for at, n in GENERATOR.items() if at <= side]
        self.mapping = nn.Sequential()
        for number in range(MAPPING_LAYERS):
            self.mapping.append(nn.Linear(style if number else LATENT, style))
            self.mapping.append(nn.LeakyReLU(MAPPING_SLOPE))
        self.constant = nn.Linear(1, channels[0] * 16)
        self.first = Layer(channels[0], channels[0], style)
        self.levels = nn.ModuleList(
            nn.ModuleList([Layer(before, after, style), Layer(after, after, style)])
            for before, after in zip(channels, channels[1:], strict=False)
        )
        self.to_rgb = nn.Conv2d(channels[-1], 3, 1)
        self.apply(_start)

    def forward(self, latents: Tensor, noise: Tensor) -> Tensor:
        """Images (B, 3, S, S)."""
        style = self.mapping(latents)
        maps = self.constant(latents.new_ones(len(latents), 1)).unflatten(1, (-1, 4, 4))
        maps = self.first(maps, style, noise)
        for level in self.levels:
            maps = F.interpolate(maps, scale_factor=2, mode="bilinear")
            for layer in level:
                maps = layer(maps, style, noise)
        return torch.sigmoid(self.to_rgb(maps))


class Discriminator(nn.Sequential):
    """Images (B, 3, S, S) -> scores (B, 1), without bounds."""

    def __init__(self, side: int, channel_share: float) -> None:
        super().__init__()
        channels = [scaled(n, channel_share) for at, n in DISCRIMINATOR.items() if at < side][::-1]
        for before, after in zip([3, *channels], channels, strict=False):
            self.append(nn.Conv2d(before, after, 3, padding=1)).append(nn.LeakyReLU(SLOPE))
            self.append(nn.AvgPool2d(2))
            self.append(nn.Conv2d(after, after, 3, padding=1)).append(nn.LeakyReLU(SLOPE))
        hidden = scaled(HIDDEN, channel_share)
        self.append(nn.Flatten()).append(nn.Linear(16 * channels[-1], hidden)).append(nn.ReLU())
        self.append(nn.Dropout(DROPOUT)).append(nn.Linear(hidden, 1))
        self.apply(_start)


def _start(module: nn.Module) -> None:
    """Weights as He et al. 2015, biases 0; the scales of AdaIN start around 1."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.zeros_(module.bias)
    if isinstance(module, Layer):
        nn.init.ones_(module.scale.bias)


class SlStyleganTraining:
    """The model of one diagnosis in training; images: uint8 (N, 3, S, S)."""

    def __init__(
        self, images: np.ndarray, settings: Settings, seed: int, device: torch.device
    ) -> None:
        side = images.shape[-1]
        check_power_of_two(side, 8, max(GENERATOR))
        self._pictures, self._settings, self._seed = images, settings, seed
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self._generator = Generator(side, settings.channel_share).to(device)
            self._discriminator = Discriminator(side, settings.channel_share).to(device)
        self._device, self._side = device, side
        networks = {"generator": self._generator, "discriminator": self._discriminator}
        self._optimizers = {
            name: torch.optim.Adam(network.parameters(), betas=BETAS, fused=True)
            for name, network in networks.items()
        }
        optimizers = {f"{name}-optimizer": each for name, each in self._optimizers.items()}
        self.parts: Parts = {**networks, **optimizers}
        self.steps, self.images = settings.training_steps, settings.training_batch
        self.parameters = size_of(*networks.values())

    def step(self, number: int) -> Row:
        """The discriminator's turn, then the generator's. Raises: `NonFiniteLoss`."""
        # Dropout has no generator of its own.
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed("dropout", self._seed, number))
            return self._step(number, step_generator(self._seed, number))

    def _step(self, number: int, draws: torch.Generator) -> Row:
        settings, device = self._settings, self._device
        options = {
            "learning_rate": learning_rate(settings.learning_rate, number),
            "max_norm": math.inf,
        }
        batch = draw_batch(
            self._pictures, self.images, number, self._seed, draws, flips=True, device=device
        )
        real = batch.requires_grad_()
        with torch.no_grad():
            fake = self._generator(*self._draw(draws))
        of_real, of_fake = self._discriminator(real), self._discriminator(fake)
        penalty = r1_penalty(of_real, real)
        loss = discriminator_loss(of_real, of_fake)
        (loss + penalty).backward(inputs=list(self._discriminator.parameters()))
        losses = {"loss_discriminator": loss, "loss_penalty": penalty}
        row = update(self._optimizers["discriminator"], losses, **options)
        loss = generator_loss(self._discriminator(self._generator(*self._draw(draws))))
        loss.backward(inputs=list(self._generator.parameters()))
        return row | update(self._optimizers["generator"], {"loss_generator": loss}, **options)

    def _draw(self, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        latents = torch.randn(self.images, LATENT, generator=draws)
        noise = torch.randn(self.images, 1, self._side, self._side, generator=draws)
        return latents.to(self._device), noise.to(self._device)

    def generator(self) -> nn.Module:
        """The generator as it is: the source keeps no averaged weights."""
        return self._generator


def train(data: pd.DataFrame, config: Config) -> None:
    """Write a generator of each diagnosis. Raises: as `gan.train_classes`."""
    train_classes(data, config, SlStyleganTraining, DEPARTURES, free={"training_steps"})


def load(folder: Path, config: Any, device: str) -> ClassSynthesizer:
    """The synthesizer of a trained folder. Raises: `ValueError` for one that cannot be used."""
    loaded = load_models(
        folder, Settings, lambda own, side: Generator(side, own.channel_share), device
    )
    return ClassSynthesizer(loaded=loaded, make=functools.partial(_make, loaded.side, device))


def _make(side: int, device: str, generator: nn.Module, seeds: list[int]) -> Tensor:
    drawn = draw_normal(seeds, LATENT + side * side)
    latents, noise = drawn[:, :LATENT], drawn[:, LATENT:].unflatten(1, (1, side, side))
    return generator(latents.to(device), noise.to(device))
