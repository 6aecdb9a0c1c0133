"""DCSAU-Net (Xu et al. 2023, Comput. Biol. Med. 154, 106626): images to one lesion logit a pixel.

A U-Net whose first stage keeps the full resolution with a large depthwise kernel (primary feature
conservation) and whose other stages are bottlenecks with attention over two branches of unequal
receptive field (compact split-attention). Every network built here has weights of its own.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

STEM = 64
EXPANSION = 4
# Inner widths of the stages; the outputs have four times as many channels.
DOWN = (32, 64, 128, 128)
UP = (64, 32, 16, 16)
REDUCTION = 4
LEAST_INNER = 32


class ConvActNorm(nn.Sequential):
    """Convolution, ReLU, batch norm: in this order, as released."""

    def __init__(self, inside: int, outside: int, kernel: int, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inside, outside, kernel, padding=kernel // 2, groups=groups),
            nn.ReLU(),
            nn.BatchNorm2d(outside),
        )


class PrimaryFeatures(nn.Module):
    """Primary feature conservation; shapes (B, 3, H, W) -> (B, 64, H, W).

    The first kernel is 7x7 as released; the paper's text says 3x3.
    """

    def __init__(self, inside: int = 3, width: int = STEM) -> None:
        super().__init__()
        self.head = ConvActNorm(inside, width, 7)
        self.depthwise = ConvActNorm(width, width, 7, groups=width)
        self.pointwise = ConvActNorm(width, width, 1)

    def forward(self, images: Tensor) -> Tensor:
        """The features at full resolution."""
        kept = self.head(images)
        return self.pointwise(self.depthwise(kept) + kept)


class SplitAttention(nn.Module):
    """Weigh a branch of one 3x3 convolution against one of two, channel by channel.

    Shapes: (B, C, H, W) -> (B, C, H, W). Training needs two images a batch at least: one batch norm
    sees one value of each image.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = max(2 * width // REDUCTION, LEAST_INNER)
        self.first = nn.Conv2d(width, 2 * width, 3, padding=1, groups=2, bias=False)
        self.first_norm = nn.BatchNorm2d(2 * width)
        self.second = nn.Conv2d(width, width, 3, padding=1, groups=2, bias=False)
        self.second_norm = nn.BatchNorm2d(width)
        self.squeeze = nn.Conv2d(width, inner, 1)
        self.squeeze_norm = nn.BatchNorm2d(inner)
        self.excite = nn.Conv2d(inner, 2 * width, 1)

    def branches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The near branch and the far one, which sees the sum of both halves once more."""
        near, far = functional.relu(self.first_norm(self.first(x))).chunk(2, dim=1)
        return near, functional.relu(self.second_norm(self.second(near + far)))

    def forward(self, x: Tensor) -> Tensor:
        """The branches, summed with weights that add to 1 in every channel."""
        near, far = self.branches(x)
        context = (near + far).mean((2, 3), keepdim=True)
        context = functional.relu(self.squeeze_norm(self.squeeze(context)))
        weights = self.excite(context).unflatten(1, (2, -1)).softmax(1)
        return weights[:, 0] * near + weights[:, 1] * far


class Bottleneck(nn.Module):
    """1x1, split attention, 1x1 around a shortcut; shapes (B, inside, H, W) -> (B, 4 width, H, W).

    `smooth` averages 3x3 px after the attention.
    """

    def __init__(self, inside: int, width: int, smooth: bool) -> None:
        super().__init__()
        outside = EXPANSION * width
        self.reduce = nn.Conv2d(inside, width, 1, bias=False)
        self.reduce_norm = nn.BatchNorm2d(width)
        self.attention = SplitAttention(width)
        self.smooth = nn.AvgPool2d(3, 1, 1) if smooth else nn.Identity()
        self.expand = nn.Conv2d(width, outside, 1, bias=False)
        self.expand_norm = nn.BatchNorm2d(outside)
        self.shortcut: nn.Module = nn.Identity()
        if inside != outside:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inside, outside, 1, bias=False), nn.BatchNorm2d(outside)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same size."""
        inner = functional.relu(self.reduce_norm(self.reduce(x)))
        inner = self.smooth(self.attention(inner))
        return functional.relu(self.expand_norm(self.expand(inner)) + self.shortcut(x))


class Stage(nn.Sequential):
    """Compact split-attention: two bottlenecks, initialised as ResNets are (fan out)."""

    def __init__(self, inside: int, width: int, smooth: bool) -> None:
        outside = EXPANSION * width
        super().__init__(Bottleneck(inside, width, smooth), Bottleneck(outside, width, False))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                area = module.kernel_size[0] * module.kernel_size[1]
                nn.init.normal_(module.weight, 0, (2 / (area * module.out_channels)) ** 0.5)


class DCSAUNet(nn.Module):
    """DCSAU-Net; shapes (B, 3, H, W) -> logits (B, 1, H, W), any H and W of 16 px or more."""

    def __init__(self, inside: int = 3) -> None:
        super().__init__()
        self.stem = PrimaryFeatures(inside)
        skips = [STEM, *(EXPANSION * width for width in DOWN)]
        self.down = nn.ModuleList(
            Stage(before, width, smooth=k > 0)
            for k, (before, width) in enumerate(zip(skips, DOWN, strict=False))
        )
        below, stages = skips[-1], []
        for k, (skip, width) in enumerate(zip(reversed(skips[:-1]), UP, strict=True)):
            stages.append(Stage(skip + below, width, smooth=k < len(UP) - 1))
            below = EXPANSION * width
        self.up = nn.ModuleList(stages)
        self.out = nn.Conv2d(below, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits at the size of the images."""
        features = [self.stem(images)]
        for stage in self.down:
            features.append(stage(functional.max_pool2d(features[-1], 2)))
        x = features.pop()
        for stage in self.up:
            skip = features.pop()
            x = stage(torch.cat([skip, _doubled(x, skip)], dim=1))
        return self.out(x)


def _doubled(x: Tensor, like: Tensor) -> Tensor:
    """Twice the size, and zeros around it up to the size of `like`, which an odd side needs."""
    x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
    rows, columns = like.shape[-2] - x.shape[-2], like.shape[-1] - x.shape[-1]
    return functional.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
