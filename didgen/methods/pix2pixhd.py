"""pix2pixHD: an image for a mask, by one GAN of all diagnoses.

Source: Wang, Liu, Zhu, Tao, Kautz and Catanzaro 2018 (CVPR, High-resolution image synthesis and
semantic manipulation with conditional GANs) and their public code, with the `global` generator,
which is the one for sides below 1024 px. It takes the mask and its boundary, where the code takes a
label map and the boundaries of its objects: 182,440,131 parameters; the discriminator, which sees
both and the image at two scales, has 5,533,570. There is no noise: a mask has one image.

Shapes: B images, S px a side, masks 0 or 1 (B, 1, S, S), conditions (B, 2, S, S), images in [-1, 1]
(B, 3, S, S).
"""

import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from didgen.data.images import read_mask
from didgen.methods.gan import (
    GanSynthesizer,
    draw_batch,
    finish,
    load_models,
    read_images,
    scaled,
    size_of,
    state_key,
    step_generator,
    to_pixels,
    write_models,
)
from didgen.methods.protocol import Request, Sample, derive_seed
from didgen.runtime.files import remove_leftovers
from didgen.runtime.locks import sole_writer
from didgen.runtime.precision import default_device
from didgen.runtime.reproducible import deterministic_kernels
from didgen.runtime.weights import HUB, WeightsError, check_file, describe_file, fetch
from didgen.settings.pix2pixhd import Settings
from didgen.settings.train import Config
from didgen.training.optimization import update
from didgen.training.state import Parts, Row

LOGGER = logging.getLogger(__name__)
# Channels of both networks' first layers, and how often the discriminator's double.
CHANNELS = 64
DOUBLINGS = 3
SCALES = 2
SLOPE = 0.2
BETAS = (0.5, 0.999)
# Weights of feature matching and of the perceptual loss, and of the latter's layers.
MATCHING = 10.0
PERCEPTUAL = 10.0
# Of VGG19: the numbers of relu1_1 to relu5_1 among its layers, and the weight of each.
VGG_LAYERS = {1: 1 / 32, 6: 1 / 16, 11: 1 / 8, 20: 1 / 4, 29: 1.0}
VGG_URL = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
VGG_SHA256 = "dcbb9e9d"
MODEL = "all"
DEPARTURES = [
    "The condition is the mask and its boundary; the source's is a map of many labels.",
    "The discriminator looks at two scales, as the released code; the paper's at three.",
]
WITHOUT_VGG = "There is no perceptual loss: vgg_weights is null."


def edges_of(masks: Tensor) -> Tensor:
    """1 where a pixel's neighbour above, below, left or right is of the other kind, else 0."""
    edges = torch.zeros_like(masks, dtype=torch.bool)
    down = masks[..., 1:, :] != masks[..., :-1, :]
    across = masks[..., 1:] != masks[..., :-1]
    edges[..., 1:, :] |= down
    edges[..., :-1, :] |= down
    edges[..., 1:] |= across
    edges[..., :-1] |= across
    return edges.to(masks.dtype)


def condition_of(masks: Tensor) -> Tensor:
    """Masks and their boundaries (B, 2, S, S)."""
    return torch.cat([masks, edges_of(masks)], 1)


def least_squares(scales: Sequence[Sequence[Tensor]], target: float) -> Tensor:
    """The mean squared distance of the scores from the target, the sum over the scales.

    scales: maps of a discriminator's layers at each, the last of which are the scores.
    """
    return torch.stack([(maps[-1] - target).square().mean() for maps in scales]).sum()


def feature_matching(fake: Sequence[Sequence[Tensor]], real: Sequence[Sequence[Tensor]]) -> Tensor:
    """How far the maps of made images are from those of real ones, the sum over layers and scales.

    Of each layer but the scores the mean distance, times 10 / 2 scales * 4 / 4 layers, as in the
    source. No gradient goes through the real ones.
    """
    pairs = [
        (one, other.detach())
        for ours, theirs in zip(fake, real, strict=True)
        for one, other in zip(ours[:-1], theirs[:-1], strict=True)
    ]
    weight = MATCHING / len(fake) * 4 / (DOUBLINGS + 1)
    return weight * torch.stack([F.l1_loss(one, other) for one, other in pairs]).sum()


def learning_rate(first: float, epoch: int, constant: int, decay: int) -> float:
    """The rate of an epoch, counted from 0: constant, then linear; it would be 0 after the last."""
    return first * (1 - max(0, epoch - constant) / max(1, decay))


class Mirror(nn.Module):
    """Padding with the mirrored image.

    Not `ReflectionPad2d`: on a GPU the gradient of that does not repeat bit by bit.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h + 2 width, w + 2 width)."""
        for axis in (2, 3):
            last = maps.shape[axis] - 1 - self.width
            before = maps.narrow(axis, 1, self.width).flip(axis)
            after = maps.narrow(axis, last, self.width).flip(axis)
            maps = torch.cat([before, maps, after], axis)
        return maps


class Block(nn.Module):
    """A residual block of two convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(Mirror(1), nn.Conv2d(channels, channels, 3), nn.InstanceNorm2d(channels), nn.ReLU()),
            *(Mirror(1), nn.Conv2d(channels, channels, 3), nn.InstanceNorm2d(channels)),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """The maps, and what the layers add to them."""
        return maps + self.layers(maps)


class Generator(nn.Sequential):
    """Conditions (B, 2, S, S) -> images in [-1, 1]."""

    def __init__(self, channel_share: float, downsamplings: int, blocks: int) -> None:
        first = scaled(CHANNELS, channel_share)
        widths = [first << number for number in range(downsamplings + 1)]
        super().__init__(Mirror(3), nn.Conv2d(2, first, 7), nn.InstanceNorm2d(first), nn.ReLU())
        for before, after in zip(widths, widths[1:], strict=False):
            self.append(nn.Conv2d(before, after, 3, stride=2, padding=1))
            self.append(nn.InstanceNorm2d(after)).append(nn.ReLU())
        for _ in range(blocks):
            self.append(Block(widths[-1]))
        for before, after in zip(widths[::-1], widths[-2::-1], strict=False):
            self.append(nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=1))
            self.append(nn.InstanceNorm2d(after)).append(nn.ReLU())
        self.append(Mirror(3)).append(nn.Conv2d(first, 3, 7)).append(nn.Tanh())
        self.apply(_start)


class PatchDiscriminator(nn.ModuleList):
    """Condition and image (B, 5, S, S) -> the maps of each layer, the last of them scores."""

    def __init__(self, channel_share: float) -> None:
        first = scaled(CHANNELS, channel_share)
        widths = [first << number for number in range(DOUBLINGS + 1)]
        activation = nn.LeakyReLU(SLOPE)
        super().__init__([nn.Sequential(nn.Conv2d(5, first, 4, 2, padding=2), activation)])
        for before, after in zip(widths, widths[1:], strict=False):
            stride = 1 if after == widths[-1] else 2
            convolution = nn.Conv2d(before, after, 4, stride, padding=2)
            self.append(nn.Sequential(convolution, nn.InstanceNorm2d(after), activation))
        self.append(nn.Sequential(nn.Conv2d(widths[-1], 1, 4, 1, padding=2)))
        self.apply(_start)

    def forward(self, maps: Tensor) -> list[Tensor]:
        """Of every layer."""
        found = []
        for layer in self:
            maps = layer(maps)
            found.append(maps)
        return found


class Discriminator(nn.ModuleList):
    """A `PatchDiscriminator` for the images as they are, and one for those of half the side."""

    def __init__(self, channel_share: float) -> None:
        super().__init__(PatchDiscriminator(channel_share) for _ in range(SCALES))

    def forward(self, condition: Tensor, images: Tensor) -> list[list[Tensor]]:
        """The maps of each layer, at each scale."""
        seen = torch.cat([condition, images], 1)
        found = []
        for discriminator in self:
            found.append(discriminator(seen))
            seen = F.avg_pool2d(seen, 3, 2, padding=1, count_include_pad=False)
        return found


class Perceptual(nn.Module):
    """The weighted distance of two images in the maps of VGG19, which take them as they are.

    features: torchvision's, frozen. The source does not shift images to ImageNet's mean.
    """

    def __init__(self, features: nn.Sequential) -> None:
        super().__init__()
        self.features = features.eval().requires_grad_(False)

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        """The loss, times 10; no gradient goes through the real images."""
        with torch.no_grad():
            wanted = self._maps(real)
        losses = [
            weight * F.l1_loss(one, other)
            for weight, one, other in zip(
                VGG_LAYERS.values(), self._maps(fake), wanted, strict=True
            )
        ]
        return PERCEPTUAL * torch.stack(losses).sum()

    def _maps(self, maps: Tensor) -> list[Tensor]:
        found = []
        for number, layer in enumerate(self.features):
            maps = layer(maps)
            if number in VGG_LAYERS:
                found.append(maps)
        return found


def published_vgg() -> Path:
    """The file of torchvision's VGG19, in torch's cache or fetched into it.

    Raises: `WeightsError`.
    """
    return fetch(VGG_URL, VGG_SHA256)


def open_vgg(weights: str) -> tuple[nn.Sequential, str]:
    """The layers of VGG19 up to relu5_1, and what their weights are.

    weights: a .safetensors file of torchvision's VGG19, or `hub`. Raises: `WeightsError`.
    """
    from torchvision.models import vgg19

    if weights == HUB:
        path = published_vgg()
        state = torch.load(path, weights_only=True, map_location="cpu")
    else:
        path = Path(weights)
        check_file(path)
        state = load_file(path)
    with torch.device("meta"):
        features = vgg19().features[: max(VGG_LAYERS) + 1]
    wanted = features.state_dict()
    odd = [
        name
        for name, value in wanted.items()
        if (own := state.get(f"features.{name}")) is None or own.shape != value.shape
    ]
    if odd:
        raise WeightsError(
            f"{path}: {len(odd)} of the {len(wanted)} tensors of VGG19 are not in it or have "
            f"another shape, the first is features.{odd[0]}; expected torchvision's, {VGG_URL}"
        )
    features.load_state_dict({name: state[f"features.{name}"] for name in wanted}, assign=True)
    return features, describe_file(path)


def _start(module: nn.Module) -> None:
    """Weights normal with a deviation of 0.02; biases as PyTorch has them."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)


class Pix2pixhdTraining:
    """The model in training; pictures: uint8 (N, 4, S, S), images and masks of 0 and 255."""

    def __init__(
        self,
        pictures: np.ndarray,
        settings: Settings,
        seed: int,
        device: torch.device,
        perceptual: Perceptual | None,
    ) -> None:
        self._pictures, self._settings, self._seed, self._device = pictures, settings, seed, device
        self._perceptual = perceptual
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self._generator = build(settings).to(device)
            self._discriminator = Discriminator(settings.channel_share).to(device)
        networks = {"generator": self._generator, "discriminator": self._discriminator}
        self._optimizers = {
            name: torch.optim.Adam(network.parameters(), betas=BETAS, fused=True)
            for name, network in networks.items()
        }
        optimizers = {f"{name}-optimizer": each for name, each in self._optimizers.items()}
        self.parts: Parts = {**networks, **optimizers}
        self.images, self.parameters = settings.training_batch, size_of(*networks.values())
        shown = len(pictures) * (settings.epochs + settings.decay_epochs)
        self.steps = math.ceil(shown / settings.training_batch)

    def step(self, number: int) -> Row:
        """Both networks' losses of one pass, and their updates. Raises: `NonFiniteLoss`."""
        settings, size = self._settings, self.images
        draws = step_generator(self._seed, number)
        batch = draw_batch(
            self._pictures, size, number, self._seed, draws, flips=True, device=self._device
        )
        condition, real = condition_of(batch[:, 3:]), batch[:, :3] * 2 - 1
        fake = self._generator(condition)
        of_real = self._discriminator(condition, real)
        of_fake = self._discriminator(condition, fake.detach())
        theirs = {
            "loss_discriminator": (least_squares(of_fake, 0.0) + least_squares(of_real, 1.0)) / 2
        }
        of_fake = self._discriminator(condition, fake)
        ours = {
            "loss_generator": least_squares(of_fake, 1.0),
            "loss_matching": feature_matching(of_fake, of_real),
        }
        if self._perceptual is not None:
            ours["loss_perceptual"] = self._perceptual(fake, real)
        epoch = number * size // len(self._pictures)
        rate = learning_rate(settings.learning_rate, epoch, settings.epochs, settings.decay_epochs)
        options = {"learning_rate": rate, "max_norm": math.inf}
        # Each network gets the gradient of its own losses, and both are taken before any moves.
        torch.stack([*ours.values()]).sum().backward(inputs=list(self._generator.parameters()))
        theirs["loss_discriminator"].backward(inputs=list(self._discriminator.parameters()))
        row = update(self._optimizers["discriminator"], theirs, **options)
        return row | update(self._optimizers["generator"], ours, **options)

    def generator(self) -> nn.Module:
        """The generator as it is: the source keeps no averaged weights."""
        return self._generator


def build(settings: Settings) -> Generator:
    """A generator of the size that the settings say."""
    return Generator(settings.channel_share, settings.downsamplings, settings.blocks)


def train(data: pd.DataFrame, config: Config) -> None:
    """Write the one generator, which learns from the images that have a mask.

    Raises: `ValueError` for fewer of these than a batch has, for images of several sizes or a side
    that cannot be halved so often, `WeightsError`; as `gan.finish`.
    """
    own = config.own
    assert isinstance(own, Settings)
    masked = data[data["mask"].notna()]
    if len(masked) < len(data):
        LOGGER.info("%d images left out: no mask", len(data) - len(masked))
    if len(masked) < own.training_batch:
        raise ValueError(
            f"{config.train}: found {len(masked)} images with a mask, expected "
            f"{own.training_batch} at least, a batch of the method {config.method}; add masks or "
            f"lower methods.{config.method}.training_batch"
        )
    perceptual, origin = None, "none"
    device = default_device()
    if own.vgg_weights is not None:
        features, origin = open_vgg(own.vgg_weights)
        perceptual = Perceptual(features).to(device)
    images = read_images(masked["image"].tolist())
    side, multiple = images.shape[-1], 2**own.downsamplings
    if side % multiple or side < 2 * multiple:
        raise ValueError(
            f"data.size: found images of {side} px, expected a multiple of {multiple} px from "
            f"{2 * multiple} px on, since the generator halves the side {own.downsamplings} times; "
            f"change data.size or methods.{config.method}.downsamplings"
        )
    masks = [read_mask(path, (side, side)) for path in masked["mask"]]
    pictures = np.concatenate([images, np.stack(masks)[:, None] * np.uint8(255)], 1)
    state = config.state / state_key(config, {"conditions"}, masked["id"], [origin], pictures)
    with deterministic_kernels(device), sole_writer(state):
        remove_leftovers(state)
        LOGGER.info("%d images with a mask; VGG19: %s", len(masked), origin)
        seed = derive_seed(config.seed, config.method)
        training = Pix2pixhdTraining(pictures, own, seed, device, perceptual)
        model = finish(training, state, config.method, own.checkpoint_every)
    departures = DEPARTURES if perceptual else [*DEPARTURES, WITHOUT_VGG]
    write_models(config, side, {MODEL: model}, departures)


def load(folder: Path, config: Any, device: str) -> "Pix2pixhdSynthesizer":
    """The synthesizer of a trained folder. Raises: `ValueError` for one that cannot be used."""
    loaded = load_models(folder, Settings, lambda own, side: build(own), device)
    return Pix2pixhdSynthesizer(loaded=loaded, device=device)


@dataclass(frozen=True, kw_only=True)
class Pix2pixhdSynthesizer(GanSynthesizer):
    """Makes the one image of each mask."""

    device: str

    def check(self, requests: Sequence[Request]) -> None:
        """Warn of masks that stand several times: so do their images.

        Raises: `ValueError` for a request without a mask, or with one of another size than the
        training's.
        """
        side, seen = self.loaded.side, set()
        for request in requests:
            if request.mask is None or request.mask.shape != (side, side):
                found = "none" if request.mask is None else f"one of {request.mask.shape}"
                raise ValueError(
                    f"{request.id}: found {found}, expected a mask of ({side}, {side}), the size "
                    "that the method was trained on; train it again on images of this size"
                )
            seen.add(hashlib.sha256(request.mask.tobytes()).digest())
        if len(seen) < len(requests):
            LOGGER.warning(
                "%d of %d masks differ, and each has one image: the others are copies",
                len(seen),
                len(requests),
            )

    @torch.inference_mode()
    def synthesize(self, requests: Sequence[Request]) -> list[Sample]:
        """Make one pair per request, in order; its mask is the one that was asked for."""
        masks = torch.from_numpy(np.stack([np.asarray(request.mask) for request in requests]))
        condition = condition_of(masks[:, None].float()).to(self.device)
        images = to_pixels((self.loaded.generators[MODEL](condition) + 1) / 2)
        return [
            Sample(request, image, request.mask)
            for request, image in zip(requests, images, strict=True)
        ]
