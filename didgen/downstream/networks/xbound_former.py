"""XBound-Former (Wang et al. 2023, IEEE TMI): images to lesion logits, taught by boundaries.

A PVTv2-B2 backbone; on its three coarser scales a transformer learns where the boundary runs
(im-Bound) and distils it into one vector a scale (ex-Bound), and neighbouring scales exchange those
vectors (X-Bound).

Shapes: B batch, C = 128 channels, maps (B, C, h, w) at 1/8, 1/16 and 1/32 of the image, tokens
(B, h w, C).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

BACKBONE = "pvt_v2_b2"
STRIDE = 32
WIDTH = 128
HEADS = 8
FEEDFORWARD = 2048
EXCHANGE_FEEDFORWARD = 512
DROPOUT = 0.1
DROP_PATH = 0.1
GRID = 50


class XBoundOutput(NamedTuple):
    """What training sees: lesion logits (B, 1, H, W), and boundary logits (B, 1, h, w) a scale."""

    lesions: list[Tensor]
    boundaries: list[list[Tensor]]


def _feedforward(width: int, inner: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, inner), nn.LeakyReLU(), nn.Dropout(dropout), nn.Linear(inner, width)
    )


def _attention(width: int, dropout: float) -> nn.MultiheadAttention:
    return nn.MultiheadAttention(width, HEADS, dropout=dropout, batch_first=True)


class Positions(nn.Module):
    """A learned vector for each place of a grid: half of it by column, half by row."""

    def __init__(self, width: int = WIDTH, grid: int = GRID) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.rand(grid, width // 2))
        self.columns = nn.Parameter(torch.rand(grid, width // 2))

    def forward(self, height: int, width: int) -> Tensor:
        """Tokens (1, h w, C). A grid beyond 50 places a side, where the released code ends with an
        IndexError, has the tables stretched over it."""
        rows, columns = _stretched(self.rows, height), _stretched(self.columns, width)
        both = [
            columns[None].expand(height, width, -1),
            rows[:, None].expand(height, width, -1),
        ]
        return torch.cat(both, dim=-1).flatten(0, 1)[None]


def _stretched(table: Tensor, n: int) -> Tensor:
    if n <= len(table):
        return table[:n]
    return functional.interpolate(table.T[None], n, mode="linear", align_corners=True)[0].T


class BoundaryGate(nn.Module):
    """A map of how likely each place is on the boundary, which then amplifies the features."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, 1, 1),
        )  # fmt: skip

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, C, h, w) -> the same, amplified, and boundary logits (B, 1, h, w)."""
        boundary = self.body(features)
        return features * boundary.sigmoid() + features, boundary


class ImplicitLayer(nn.Module):
    """im-Bound: a pre-norm encoder layer, then the boundary gate on its two-dimensional map."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attention = _attention(width, DROPOUT)
        self.feedforward = _feedforward(width, FEEDFORWARD, DROPOUT)
        self.dropout = nn.Dropout(DROPOUT)
        self.gate = BoundaryGate(width)

    def forward(self, x: Tensor, positions: Tensor, shape: tuple[int, int]) -> list[Tensor]:
        """Tokens (B, h w, C) -> the same, and boundary logits (B, 1, h, w)."""
        value = self.norms[0](x)
        key = value + positions
        x = x + self.dropout(self.attention(key, key, value, need_weights=False)[0])
        x = x + self.dropout(self.feedforward(self.norms[1](x)))
        gated, boundary = self.gate(x.transpose(1, 2).unflatten(2, shape))
        return [gated.flatten(2).transpose(1, 2), boundary]


class ExplicitLayer(nn.Module):
    """ex-Bound: a pre-norm decoder layer whose one token gathers what the map knows."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.own = _attention(width, DROPOUT)
        self.across = _attention(width, DROPOUT)
        self.feedforward = _feedforward(width, FEEDFORWARD, DROPOUT)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor, query: Tensor, memory: Tensor, positions: Tensor) -> Tensor:
        """Token (B, 1, C), its query (1, 1, C) and memory (B, h w, C) -> token (B, 1, C)."""
        value = self.norms[0](x)
        key = value + query
        x = x + self.dropout(self.own(key, key, value, need_weights=False)[0])
        asked = self.norms[1](x) + query
        attended = self.across(asked, memory + positions, memory, need_weights=False)[0]
        x = x + self.dropout(attended)
        return x + self.dropout(self.feedforward(self.norms[2](x)))


class BoundaryLearner(nn.Module):
    """Both learners of one scale: features told where the boundary is, and its vector."""

    def __init__(self, implicit: int, explicit: int, width: int = WIDTH) -> None:
        super().__init__()
        self.positions = Positions(width)
        self.query = nn.Parameter(torch.randn(1, 1, width))
        self.implicit = nn.ModuleList(ImplicitLayer(width) for _ in range(implicit))
        self.implicit_norm = nn.LayerNorm(width)
        self.explicit = nn.ModuleList(ExplicitLayer(width) for _ in range(explicit))
        self.explicit_norm = nn.LayerNorm(width)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Maps (B, C, h, w) -> the same, vector (B, 1, C), boundary logits (B, 1, h, w) a layer."""
        shape = tuple(features.shape[-2:])
        positions = self.positions(*shape)
        x, boundaries = features.flatten(2).transpose(1, 2), []
        for layer in self.implicit:
            x, boundary = layer(x, positions, shape)
            boundaries.append(boundary)
        x = self.implicit_norm(x)
        query = self.query.expand(len(x), -1, -1)
        vector = torch.zeros_like(query)
        for layer in self.explicit:
            vector = layer(vector, query, x, positions)
        return x.transpose(1, 2).unflatten(2, shape), self.explicit_norm(vector), boundaries


class Crossing(nn.Module):
    """Features of one scale that ask for the boundary vector of another: a post-norm layer."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.attention = _attention(width, 0.0)
        self.feedforward = _feedforward(width, EXCHANGE_FEEDFORWARD, 0.0)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, features: Tensor, vector: Tensor) -> Tensor:
        """Maps (B, C, h, w) and a vector (B, 1, C) -> maps (B, C, h, w)."""
        x = features.flatten(2).transpose(1, 2)
        x = self.norms[0](x + self.attention(x, vector, vector, need_weights=False)[0])
        x = self.norms[1](x + self.feedforward(x))
        return x.transpose(1, 2).unflatten(2, tuple(features.shape[-2:]))


class Exchange(nn.Module):
    """X-Bound: the finer of two scales, told of the coarser one and of its boundary.

    `released`: return twice the fused features, as the released code does, which loses the residual
    that it means to add.
    """

    def __init__(self, width: int = WIDTH, released: bool = False) -> None:
        super().__init__()
        self.fine, self.coarse = Crossing(width), Crossing(width)
        self.fuse = nn.Conv2d(2 * width, width, 1)
        self.released = released

    def forward(
        self, fine: Tensor, coarse: Tensor, fine_vector: Tensor, coarse_vector: Tensor
    ) -> Tensor:
        """Maps and vectors of two scales -> the finer maps."""
        coarse_features = self.coarse(coarse, fine_vector)
        coarse_features = functional.interpolate(coarse_features, fine.shape[-2:], mode="nearest")
        fused = self.fuse(torch.cat([self.fine(fine, coarse_vector), coarse_features], dim=1))
        return 2 * fused if self.released else fine + fused


class XBoundFormer(nn.Module):
    """XBound-Former; in evaluation (B, 3, H, W) -> logits (B, 1, H, W), H and W multiples of 32.

    In training an `XBoundOutput`: logits of the main head and of three scales, all at the size of
    the images, and the boundary logits of every im-Bound layer.

    `implicit` and `explicit`: layers of the learners, 1 as released for ISIC 2018 (the paper: 2).
    Departures: 131 584 parameters that the released code never calls are left out; without
    `released`, the fusion keeps its residual and the head has no frame of zeros.
    """

    def __init__(self, implicit: int = 1, explicit: int = 1, released: bool = False) -> None:
        import timm

        super().__init__()
        self.backbone = timm.create_model(
            BACKBONE, pretrained=False, features_only=True, drop_path_rate=DROP_PATH
        )
        first, *others = self.backbone.feature_info.channels()
        self.narrow = nn.ModuleList(nn.Conv2d(n, WIDTH, 1) for n in others)
        self.learners = nn.ModuleList(BoundaryLearner(implicit, explicit) for _ in others)
        self.exchanges = nn.ModuleList(Exchange(released=released) for _ in others[1:])
        # A 1x1 kernel needs no padding; as released it has some, and a frame without content.
        frame = 1 if released else 0
        self.head = nn.Sequential(
            nn.Conv2d(first + WIDTH, first, 1, padding=frame, bias=False),
            nn.BatchNorm2d(first), nn.ReLU(), nn.Conv2d(first, 1, 1),
        )  # fmt: skip
        self.scale_heads = nn.ModuleList(nn.Conv2d(WIDTH, 1, 1) for _ in others)

    def forward(self, images: Tensor) -> Tensor | XBoundOutput:
        """Logits at the size of the images; in training with those of scales and boundaries."""
        finest, *others = self.backbone(images)
        learned = [
            learner(narrow(x))
            for learner, narrow, x in zip(self.learners, self.narrow, others, strict=True)
        ]
        maps, vectors, boundaries = map(list, zip(*learned, strict=True))
        for k in reversed(range(len(self.exchanges))):
            maps[k] = self.exchanges[k](maps[k], maps[k + 1], vectors[k], vectors[k + 1])
        below = functional.interpolate(maps[0], finest.shape[-2:], mode="bilinear")
        main = _resized(self.head(torch.cat([finest, below], dim=1)), images)
        if not self.training:
            return main
        aside = [_resized(head(x), images) for head, x in zip(self.scale_heads, maps, strict=True)]
        return XBoundOutput([main, *aside], boundaries)


def _resized(logits: Tensor, images: Tensor) -> Tensor:
    return functional.interpolate(logits, images.shape[-2:], mode="bilinear")


def boundary_targets(masks: Tensor, sizes: list[torch.Size]) -> list[Tensor]:
    """Where a mask (B, 1, H, W) has its contour, on coarser grids (B, 1, h, w), in {0, 1}.

    The contour: pixels of the lesion beside skin (the released code's edge detector finds the same
    line to a pixel). A cell of a grid counts when the contour passes through it.
    """
    lesion = masks.float()
    inner = -functional.max_pool2d(-lesion, 3, 1, 1)
    return [functional.adaptive_max_pool2d(lesion - inner, tuple(size)) for size in sizes]


def structure_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy and soft IoU of each image, both weighted towards the contour; mean, a scalar.

    The weight of a pixel is 1 + 5 |local mean of the mask - mask|, the mean over 31x31 px (Wei et
    al. 2020, F3Net, Eq. 9 to 11). Shapes: (B, 1, H, W) each.
    """
    weight = 1 + 5 * (functional.avg_pool2d(masks, 31, 1, 15) - masks).abs()
    entropy = functional.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    entropy = (weight * entropy).sum((1, 2, 3)) / weight.sum((1, 2, 3))
    lesion = logits.sigmoid()
    both = (weight * lesion * masks).sum((1, 2, 3))
    either = (weight * (lesion + masks)).sum((1, 2, 3)) - both
    return (entropy + 1 - (both + 1) / (either + 1)).mean()


def xbound_loss(output: XBoundOutput, masks: Tensor) -> Tensor:
    """Structure loss over the four lesion maps plus cross-entropy over the boundary maps."""
    masks = masks.float()
    lesions = torch.stack([structure_loss(x.float(), masks) for x in output.lesions]).mean()
    targets = boundary_targets(masks, [scale[0].shape[-2:] for scale in output.boundaries])
    boundaries = [
        functional.binary_cross_entropy_with_logits(boundary.float(), target)
        for scale, target in zip(output.boundaries, targets, strict=True)
        for boundary in scale
    ]
    return lesions + torch.stack(boundaries).mean() if boundaries else lesions
