"""The loss of the region-aware fine-tuning: Eq. 1, 3 and 4, with its readings and weights.

Shapes: B images, C latent channels, h and w latent cells, K tokens, r attention map side.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from didgen.attention.losses import Normalization, region_attention_loss
from didgen.attention.maps import minmax
from didgen.settings.finetune import Reading


def reconstruction_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Eq. 1: mean squared error of the predicted noise (or velocity), one value an image.

    Shapes: (B, C, h, w) both; result (B,).
    """
    return F.mse_loss(prediction.float(), target.float(), reduction="none").flatten(1).mean(1)


def total_loss(
    loss_rec: Tensor,
    loss_attn: Tensor,
    has_mask: Tensor,
    alpha: float,
    images: int | None = None,
    masked: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Eq. 4: L = L_rec + alpha L_attn, with L_attn averaged over the images that have a mask.

    Shapes: (B,) each. `images` and `masked` are the counts to divide by, where these B are a part
    of a larger batch: the parts' results then add up to those of the whole. Returns the total and
    the mean L_attn, both scalars.
    """
    weight = has_mask.to(loss_attn.dtype)
    count = weight.sum() if masked is None else weight.new_tensor(float(masked))
    attn = (loss_attn * weight).sum() / count.clamp(min=1.0)
    loss = loss_rec.sum() / (images or len(loss_rec))
    # Without weight not even one that is not finite counts.
    return (loss + alpha * attn if alpha else loss), attn


def attention_loss(
    maps: Tensor, masks: Tensor, reading: Reading, normalization: Normalization
) -> Tensor:
    """L_attn (Eq. 3) in one of its readings, (B,) from maps and masks (B, K, r, r).

    "minmax" and "raw" as in `region_attention_loss`, as `normalization`; "jensen-shannon", which
    has none, as in `jensen_shannon_loss`.
    """
    if reading == "jensen-shannon":
        return jensen_shannon_loss(maps, masks)
    return region_attention_loss(maps, masks, reading=reading, normalization=normalization)


def jensen_shannon_loss(maps: Tensor, masks: Tensor) -> Tensor:
    """L_attn as the Jensen-Shannon divergence of map and mask, nats, mean over tokens, (B,).

    maps, masks: (B, K, r, r). As in the first public release of the authors' code, map (scaled to
    [0, 1]) and mask each become a distribution over pixels by softmax, so that exactly opposite
    halves are only 0.11 apart: give it more weight than the others (released: alpha = 1).
    Departures: each image and token has a distribution of its own (released: one over the whole
    batch, for one token drawn by chance), at the maps' own resolution (released: enlarged to 32).
    """
    p = minmax(maps).flatten(2).log_softmax(-1)
    q = masks.to(p.dtype).flatten(2).log_softmax(-1)
    middle = torch.logaddexp(p, q) - torch.log(p.new_tensor(2.0))
    both = p.exp() * (p - middle) + q.exp() * (q - middle)
    return 0.5 * both.sum(-1).mean(-1)


def snr_weights(
    alphas_cumprod: Tensor, timesteps: Tensor, prediction_type: str, gamma: float
) -> Tensor:
    """Min-SNR weights (Hang et al. 2023) of timesteps (B,): min(SNR, gamma) / SNR, (B,).

    For v-prediction the divisor is SNR + 1.
    """
    alpha = alphas_cumprod[timesteps.to(alphas_cumprod.device)].to(timesteps.device).float()
    snr = alpha / (1 - alpha)
    return snr.clamp(max=gamma) / (snr if prediction_type == "epsilon" else snr + 1)
