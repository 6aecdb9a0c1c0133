"""What is looked at on held-out images during a fine-tuning: always the same noise and prompt.

Shapes: N images, C latent channels, h and w cells, r attention map side.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from didgen.attention.recorder import AttentionRecorder
from didgen.backbone.handle import Backbone
from didgen.backbone.sampling import initial_noise, sample
from didgen.methods.didgen.objective import attention_loss, reconstruction_loss
from didgen.runtime.precision import autocast

# Little, medium and much noise; maps are read at the first.
TIMESTEPS = (100, 400, 700)
GUIDANCE_SCALE = 5.0


@dataclass(frozen=True)
class HeldOut:
    """Held-out images as latents (N, C, h, w), their seeds, and the prompt they are seen with."""

    latents: Tensor
    seeds: tuple[int, ...]
    prompt: str
    positions: tuple[int, int]


@torch.inference_mode()
def hold_out(
    backbone: Backbone,
    images: Tensor,
    seeds: Sequence[int],
    prompt: str,
    positions: tuple[int, int],
) -> HeldOut:
    """Encode images (N, 3, H, W) in [-1, 1] one by one, to their mean latents."""
    latents = torch.cat([backbone.encode_moments(image[None])[0] for image in images])
    # No inference tensors: they are read inside other modes later.
    return HeldOut(latents.clone(), tuple(seeds), prompt, positions)


@torch.no_grad()
def look(
    backbone: Backbone, held_out: HeldOut, masks: Tensor, resolution: int, precision: str
) -> tuple[dict[str, float], Tensor]:
    """Validation losses by name, and both tokens' attention maps (N, 2, r, r) at little noise.

    masks (N, 2, r, r) are the soft masks of lesion and skin. "loss_rec" is the mean over
    `TIMESTEPS`; "loss_rec_100" and so on are those of one; "loss_attn" is Eq. 3 at the first.
    """
    clean, device = held_out.latents, backbone.device
    embedding = backbone.embed([held_out.prompt]).expand(len(clean), -1, -1)
    noise = initial_noise(held_out.seeds, clean.shape[1:], device, clean.dtype)
    wanted = {"resolution": resolution, "positions": list(held_out.positions)}
    found, maps = {}, None
    for number in TIMESTEPS:
        timesteps = torch.full((len(clean),), number, device=device)
        noisy = backbone.add_noise(clean, noise, timesteps)
        target = backbone.training_target(clean, noise, timesteps)
        with (
            AttentionRecorder(backbone.unet, cross=wanted) as recorder,
            autocast(device, precision),
        ):
            prediction = backbone.predict(noisy, timesteps, embedding)
        found[f"loss_rec_{number}"] = float(reconstruction_loss(prediction, target).mean())
        maps = recorder.cross_maps().float() if maps is None else maps
    mean = sum(found.values()) / len(found)
    attn = float(attention_loss(maps, masks.to(maps), "minmax", "mean").mean())
    return {"loss_rec": mean, "loss_attn": attn, **found}, maps


def draw_samples(
    backbone: Backbone, held_out: HeldOut, count: int, steps: int, precision: str
) -> Tensor:
    """Images (count, 3, H, W) in [-1, 1] of the prompt, from fixed seeds 0, 1, ..."""
    with autocast(backbone.device, precision):
        latents = sample(
            backbone,
            [held_out.prompt] * count,
            range(count),
            steps=steps,
            guidance_scale=GUIDANCE_SCALE,
            scheduler="dpm++",
        )
    with torch.no_grad():
        return backbone.decode(latents).float().cpu()
