"""The design of the released code (github.com/junjie-shentu/DiDGen), re-created for timing.

What it costs follows from these choices, which are its own: attention is computed explicitly in
every layer, and every map up to 64x64 is kept, with its graph, and copied once more at the end of
the pass; the graph is built on every sampling step, though only the first half uses it; the
weights stay trainable; L_SA is a Python loop over the lesion's pixels, computed twice; the power
of the self-attention map is a product of 1024x1024 matrices, at every step; one image at a time.
"""

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn import functional

from didgen.backbone.handle import Backbone
from didgen.backbone.sampling import SCHEDULERS, initial_noise

LARGEST = 64 * 64
WORDS = 6  # of its prompt, between the start and the end token
TAU = 4


class Store:
    """Every map of the last pass, by kind, and a copy of them."""

    def __init__(self) -> None:
        self.step: dict[str, list[Tensor]] = {"cross": [], "self": []}
        self.kept: dict[str, list[Tensor]] = {"cross": [], "self": []}

    def __call__(self, weights: Tensor, kind: str) -> None:
        if weights.shape[1] <= LARGEST:
            self.step[kind].append(weights.clone())

    def end_pass(self) -> None:
        """Copy what the pass left."""
        self.kept = {kind: [m.clone() for m in maps] for kind, maps in self.step.items()}
        self.step = {"cross": [], "self": []}

    def average(self, kind: str, side: int) -> Tensor:
        """Mean over the heads of the layers at side x side, (pixels, keys)."""
        return torch.cat([m for m in self.kept[kind] if m.shape[1] == side * side]).mean(0)


class StoringProcessor:
    """Attention written out, its map handed to a store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **_: object,
    ) -> Tensor:
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            attn.head_to_batch_dim(part)
            for part in (attn.to_q(hidden_states), attn.to_k(source), attn.to_v(source))
        )
        weights = attn.get_attention_scores(query, key, attention_mask)
        self.store(weights, "self" if encoder_hidden_states is None else "cross")
        result = attn.batch_to_head_dim(torch.bmm(weights, value))
        return attn.to_out[1](attn.to_out[0](result))


def released_losses(store: Store, mask: Tensor, token: int) -> Tensor:
    """Its loss: a ratio of means on the cross map, and the loop over the lesion's pixels."""
    cross = store.average("cross", 16)[:, 1 : 1 + WORDS]
    lesion = (100.0 * cross).softmax(-1)[:, token - 1].view(16, 16)
    soft = functional.interpolate(mask, size=(16, 16), mode="bilinear", antialias=True)[0, 0]
    foreground = 1 - (lesion * soft).sum() / soft.sum()
    background = (lesion * (1 - soft)).sum() / (1 - soft).sum()
    matrix = store.average("self", 32)
    hard = (functional.interpolate(mask, size=(32, 32))[0, 0] > 0.5).float().flatten()
    total = foreground + background
    for _ in ("lesion", "skin"):  # the second repeats the first
        terms = []
        for pixel in hard.nonzero().flatten().tolist():
            terms.append((matrix[pixel] * (1 - hard)).sum() / (1 - hard).sum())
        total = total + 0.5 * torch.stack(terms).mean()
    return total


def released_map(store: Store, token: int) -> Tensor:
    """Its map, (32, 32): the matrix power of the self-attention times the cross map."""
    power = torch.linalg.matrix_power(store.average("self", 32).float(), TAU)
    cross = store.average("cross", 16)[:, token].float().view(1, 1, 16, 16)
    large = functional.interpolate(cross, size=(32, 32), mode="bicubic")
    return (power @ large.flatten()).view(32, 32)


def sample_released(
    backbone: Backbone,
    prompt: str,
    seed: int,
    mask: Tensor,
    token: int,
    steps: int,
    guidance_scale: float = 7.5,
    eta: float = 20.0,
    on_step: object = None,
) -> tuple[Tensor, Tensor]:
    """One guided pair: latents (1, C, h, w) and the map (32, 32); mask (1, 1, H, W)."""
    unet: UNet2DConditionModel = backbone.unet
    before, store = dict(unet.attn_processors), Store()
    unet.set_attn_processor(StoringProcessor(store))
    unet.requires_grad_(True)
    try:
        solver = SCHEDULERS["ddim"](backbone.scheduler.config)
        solver.set_timesteps(steps)
        text, empty = backbone.embed([prompt]), backbone.embed([""])
        latents = initial_noise([seed], backbone.latent_shape, backbone.device)
        sharp = torch.zeros(32, 32)
        for index, timestep in enumerate(solver.timesteps):
            latents = latents.detach().clone().requires_grad_(True)
            _pass(unet, latents, timestep, text, store)
            if index < steps // 2:
                loss = released_losses(store, mask, token)
                (gradient,) = torch.autograd.grad(loss, latents)
                latents = latents - eta * gradient
            with torch.no_grad():
                sharp = released_map(store, token)
                released_map(store, token)  # once for the lesion, once for the skin
                output = _pass(
                    unet, torch.cat([latents] * 2), timestep, torch.cat([empty, text]), store
                )
                without, with_text = output.chunk(2)
                output = without + guidance_scale * (with_text - without)
                latents = solver.step(output, timestep, latents).prev_sample
            if on_step is not None:
                on_step(index + 1, steps, latents)
        return latents.detach(), sharp
    finally:
        unet.set_attn_processor(before)
        unet.requires_grad_(False)


def _pass(unet: nn.Module, latents: Tensor, timestep: Tensor, text: Tensor, store: Store) -> Tensor:
    output = unet(latents, timestep, encoder_hidden_states=text).sample
    store.end_pass()
    return output
