"""Masks read out of real images: a little noise, one pass, and Eq. 7."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from didgen.attention.annotation import Annotation, annotate
from didgen.attention.layers import CROSS_SIDE, SELF_SIDE
from didgen.attention.recorder import AttentionRecorder, CrossRequest
from didgen.backbone.handle import Backbone
from didgen.backbone.placeholder import PLACEHOLDERS
from didgen.backbone.sampling import initial_noise
from didgen.settings.annotation import AnnotationSettings


@torch.inference_mode()
def read_out(
    backbone: Backbone,
    images: np.ndarray,
    prompts: Sequence[str],
    seeds: Sequence[int],
    timestep: int,
    settings: AnnotationSettings,
) -> tuple[Tensor, Annotation]:
    """Cross-attention maps (B, 2, r, r) of `<lesion>` and `<skin>`, and the masks of Eq. 7.

    images: uint8 (B, H, W, 3) of the backbone's size. timestep: how much noise is added, each
    image's by its own seed. Raises: `ValueError` for a prompt without these tokens.
    """
    positions = [[backbone.token_positions(p, t)[0] for t in PLACEHOLDERS] for p in prompts]
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).to(backbone.device).float() / 127.5 - 1
    mean, _ = backbone.encode_moments(pixels)
    noise = initial_noise(seeds, mean.shape[1:], mean.device, mean.dtype)
    timesteps = torch.full((len(images),), timestep, device=mean.device)
    noisy = backbone.add_noise(mean, noise, timesteps)
    cross: CrossRequest = {"resolution": CROSS_SIDE, "positions": positions}
    with AttentionRecorder(backbone.unet, cross=cross, self_={"resolution": SELF_SIDE}) as recorder:
        recorder.run(noisy, timesteps, backbone.embed(list(prompts)), early_exit=True)
        annotation = annotate(recorder, backbone.image_size, settings, images=pixels)
        return recorder.cross_maps().float().cpu(), annotation
