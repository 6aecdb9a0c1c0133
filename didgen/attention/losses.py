"""The losses on attention maps, one function an equation, one number an image.

Shape legend: B images, K tokens (lesion, skin), H and W of the maps, N = H * W pixels.

Maps are probabilities in [0, 1], masks (bool, or soft in [0, 1]) have the maps' shape; token
i's mask comes at index i, so for `<lesion>` and `<skin>` they are M and 1 - M. The equations'
"1/2 sum over {l, s}" is the mean over the K tokens.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from didgen.attention.maps import gaussian_smooth, minmax

MapReading = Literal["minmax", "raw"]
GuidanceReading = Literal["minmax", "raw", "foreground-background"]
Normalization = Literal["mean", "sum"]


def region_attention_loss(
    maps: Tensor,
    masks: Tensor,
    *,
    reading: MapReading,
    normalization: Normalization,
) -> Tensor:
    """L_attn (Eq. 3): half the squared distance of both tokens' maps to their masks, (B,).

    maps, masks: (B, K, H, W). `reading`: "minmax" compares each map scaled to [0, 1] by its own
    extremes, as the released code does (a raw map, a probability over 77 positions, could
    never reach a mask's 1); "raw" is the equation as printed. `normalization`: "mean" over the
    pixels, as released, so that the scale does not depend on the resolution; "sum" is the
    printed squared norm. The released code enlarges masks bicubically; ours are area averages.

    Raises ValueError for other shapes or readings.
    """
    _check(maps, masks, reading, MapReading)
    scaled = minmax(maps) if reading == "minmax" else maps
    squares = (scaled - masks.to(scaled.dtype)) ** 2
    return _reduce(squares, normalization).mean(dim=1)


def cross_attention_guidance_loss(
    maps: Tensor,
    masks: Tensor,
    *,
    reading: GuidanceReading,
    sigma: float,
    normalization: Normalization,
) -> Tensor:
    """L_CA: the loss of Eq. 3 on Gaussian-smoothed maps, for guiding the layout, (B,).

    maps, masks: (B, K, H, W). `sigma`: true standard deviation of the 3x3 filter, pixels; 0
    for none (the released code, unlike the paper, has none). `reading`: "minmax" and "raw" as
    in `region_attention_loss`; "foreground-background" is the form the released code runs in
    guidance, 1 - mean of A over M + mean of A over 1 - M. There A is the word softmax of
    100 A_C; here it is the min-maxed map, so that the prompt's other words do not enter.

    Raises ValueError for other shapes or readings.
    """
    _check(maps, masks, reading, GuidanceReading)
    smooth = gaussian_smooth(maps, sigma)
    if reading != "foreground-background":
        return region_attention_loss(smooth, masks, reading=reading, normalization=normalization)
    scaled = minmax(smooth)
    inside = masks.to(scaled.dtype)
    foreground = weighted_mean(1.0 - scaled, inside)
    background = weighted_mean(scaled, 1.0 - inside)
    return (foreground + background).mean(dim=1)


def self_attention_guidance_loss(
    mass_outside: Tensor, masks: Tensor, *, normalization: Normalization
) -> Tensor:
    """L_SA (Eq. 5): how much the pixels of each region attend to what lies outside it, (B,).

    mass_outside: (B, K, N), for each pixel p the part of its self-attention that falls outside
    token i's mask, the sum over q of A_S[p, q] (1 - M_i[q]): A_S applied to 1 - M_i. masks:
    (B, K, N), the region M_i; soft values weigh their pixel. Each pixel's mass is divided by
    the size of the outside. `normalization`: "mean" over the pixels of M_i, as released; "sum"
    is printed, and grows with the lesion's area. An empty or a full mask adds 0. Printed are both
    tokens, lesion and skin; the released code computes the lesion's term only.

    Raises ValueError for other shapes.
    """
    if mass_outside.ndim != 3 or mass_outside.shape != masks.shape:
        raise ValueError(
            f"mass_outside {tuple(mass_outside.shape)} and masks {tuple(masks.shape)} should "
            "both be (images, tokens, pixels)"
        )
    inside = masks.to(mass_outside.dtype)
    weighed = (mass_outside * inside).sum(dim=-1)
    terms = _divide(weighed, (1.0 - inside).sum(dim=-1))
    if _known(normalization, Normalization) == "mean":
        terms = _divide(terms, inside.sum(dim=-1))
    return terms.mean(dim=1)


def _reduce(values: Tensor, normalization: Normalization) -> Tensor:
    known = _known(normalization, Normalization)
    return values.mean((-2, -1)) if known == "mean" else values.sum((-2, -1))


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Mean of values (B, K, H, W) under weights, (B, K); 0 where the weights are all 0."""
    return _divide((values * weights).sum((-2, -1)), weights.sum((-2, -1)))


def _divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The quotient, and 0 with a zero gradient where the denominator is 0."""
    empty = denominator == 0
    quotient = numerator / torch.where(empty, torch.ones_like(denominator), denominator)
    return torch.where(empty, torch.zeros_like(quotient), quotient)


def _known(reading: str, readings: object) -> str:
    if reading not in get_args(readings):
        raise ValueError(f"unknown reading {reading!r}; expected one of {get_args(readings)}")
    return reading


def _check(maps: Tensor, masks: Tensor, reading: str, readings: object) -> None:
    _known(reading, readings)
    if maps.ndim != 4 or maps.shape != masks.shape:
        raise ValueError(
            f"maps {tuple(maps.shape)} and masks {tuple(masks.shape)} should both be "
            "(images, tokens, height, width); resize the masks to the maps first"
        )
