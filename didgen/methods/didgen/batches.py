"""The batches of the fine-tuning: every random choice of a step follows from (seed, step) alone.

So a resumed run repeats the undisturbed one without saved generator states, and processes that
share a step each take their part of the same draws.
Shapes: B images of a step, b of a part, C latent channels, h and w cells, T tokens, D text width.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from didgen.backbone.handle import Backbone
from didgen.methods.didgen.cache import TrainingCache
from didgen.methods.protocol import derive_seed
from didgen.settings.finetune import Settings


@dataclass(frozen=True)
class Draws:
    """A step's random choices for all of its B images.

    rows: of the cache (B,); posterior and noise (B, C, h, w) standard normal; timesteps (B,);
    prompt_rows: of the cache's embeddings (B,); regions: which images contribute L_attn (B,);
    weights: of each image's L_rec (B,), 1 but for prior preservation.
    """

    rows: np.ndarray
    posterior: Tensor
    noise: Tensor
    timesteps: Tensor
    prompt_rows: np.ndarray
    regions: np.ndarray
    weights: Tensor


@dataclass(frozen=True)
class Batch:
    """What a pass takes: noisy, target (b, C, h, w), embeddings (b, T, D), masks (b, 2, r, r),
    weights (b,) of L_rec."""

    noisy: Tensor
    target: Tensor
    timesteps: Tensor
    embeddings: Tensor
    masks: Tensor
    has_mask: Tensor
    weights: Tensor


def batch_rows(n: int, batch_size: int, step: int, seed: int) -> np.ndarray:
    """The data rows of a step: a fresh permutation an epoch, no row lost between epochs."""
    wanted = np.arange(step * batch_size, (step + 1) * batch_size)
    rows = np.empty(batch_size, dtype=np.int64)
    for epoch in np.unique(wanted // n):
        order = np.random.default_rng([seed, int(epoch)]).permutation(n)
        here = wanted // n == epoch
        rows[here] = order[wanted[here] % n]
    return rows


def draw(
    cache: TrainingCache, prefix: str, settings: Settings, seed: int, step: int, timesteps: int
) -> Draws:
    """The random choices of a step; `timesteps`: how many the backbone was trained with."""
    generator = torch.Generator().manual_seed(derive_seed("finetune", seed, step))
    prior, half = cache.prior, settings.batch_size // 2
    own = len(cache) - (prior.count if prior else 0)
    rows = batch_rows(own, settings.batch_size, step, seed)
    weights = torch.ones(len(rows))
    if prior:
        # Half of the batch each, and the mean over each half.
        others = own + batch_rows(prior.count, half, step, derive_seed("prior", seed))
        rows = np.concatenate([batch_rows(own, half, step, seed), others])
        weights = torch.cat([torch.full([half], 2.0), torch.full([half], 2 * prior.weight)])
    count, shape = len(rows), (len(rows), *cache.moments.shape[2:])
    posterior = torch.randn(shape, generator=generator)
    noise = torch.randn(shape, generator=generator)
    times = torch.randint(0, timesteps, (count,), generator=generator)
    chance = torch.rand(count, generator=generator).numpy()
    if settings.offset_noise:
        shift = torch.randn((count, shape[1], 1, 1), generator=generator)
        noise = noise + settings.offset_noise * shift
    kinds = rows
    if settings.flips:
        # Mirror images are rows of their own, after all the others.
        mirrored = torch.rand(count, generator=generator).numpy() < 0.5
        rows = rows + len(cache) * mirrored
    prompt_rows = cache.prompt_rows[rows].copy()
    # Images of the prior have no caption to drop before the prefix.
    shortened = (chance < settings.prefix_only + settings.prompt_dropout) & (kinds < own)
    prompt_rows[shortened] = cache.fixed_rows[prefix]
    empty = chance < settings.prompt_dropout
    prompt_rows[empty] = cache.fixed_rows[""]
    # An empty prompt has no `<lesion>`: nothing to tie to a region.
    regions = cache.has_mask[rows] & ~empty
    return Draws(rows, posterior, noise, times, prompt_rows, regions, weights)


def assemble(backbone: Backbone, cache: TrainingCache, draws: Draws, part: slice) -> Batch:
    """The batch of a part of a step's images, on the backbone's device."""
    device = backbone.device
    rows = draws.rows[part]
    moments = torch.from_numpy(np.asarray(cache.moments[rows], dtype=np.float32))
    latents = (moments[:, 0] + moments[:, 1] * draws.posterior[part]).to(device)
    noise, timesteps = draws.noise[part].to(device), draws.timesteps[part].to(device)
    chosen = cache.embeddings[draws.prompt_rows[part]]
    embeddings = torch.from_numpy(np.asarray(chosen, dtype=np.float32))
    return Batch(
        noisy=backbone.add_noise(latents, noise, timesteps),
        target=backbone.training_target(latents, noise, timesteps),
        timesteps=timesteps,
        embeddings=embeddings.to(device),
        masks=torch.from_numpy(np.asarray(cache.masks[rows])).to(device),
        has_mask=torch.from_numpy(draws.regions[part]).to(device),
        weights=draws.weights[part].to(device),
    )
