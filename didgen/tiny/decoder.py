"""Second phase of the tiny backbone's pretraining: the decoder alone, for fine structure.

Trained on pixel differences, a small decoder paints what a latent leaves open as its mean: thin
vessels and milia-like cysts blur away. A distance of features of a network trained on photographs
(as in Johnson et al. 2016 and in Stable Diffusion's own autoencoder) asks for structure instead.
The encoder stays as it is, so latents that were encoded before keep their meaning.

Shapes: B batch, C channels, H and W pixels.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as F

from didgen.runtime.files import write_json
from didgen.tiny.autoencoder import (
    CROP,
    check_reconstruction,
    draw_crops,
    pixel_loss,
)
from didgen.tiny.loop import Plan, step_generator, train
from didgen.tiny.parallel import rank, size

FEATURE_WEIGHT = 1.0


def feature_distance(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """Mean squared distance of feature vectors of length 1, summed over layers; in [0, 4 L].

    Each layer's features are (B, C, h, w); a vector is one cell's C values.
    """
    return sum(
        (F.normalize(a.float(), dim=1) - F.normalize(b.float(), dim=1)).square().sum(1).mean()
        for a, b in zip(found, wanted, strict=True)
    )


def refine_decoder(
    autoencoder: AutoencoderKL,
    features: nn.Module,
    images: np.ndarray,
    held_out: np.ndarray,
    plan: Plan,
    folder: Path,
    seed: int,
    batch_size: int = 8,
) -> None:
    """Train the decoder in place, the encoder frozen; `batch_size` crops a process and step.

    features: images BCHW in [-1, 1] -> a list of feature maps; its weights are not trained.
    Shapes: images and held_out uint8 (N, H, W, 3). Writes state, log, `quality.json` and a sheet
    of held-out reconstructions to `folder`. Raises: as `loop.train`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    autoencoder.requires_grad_(False)
    decoder = nn.ModuleDict(
        {"decoder": autoencoder.decoder, "post_quant_conv": autoencoder.post_quant_conv}
    ).requires_grad_(True)
    features.requires_grad_(False).eval()

    def loss_of(step: int) -> Tensor:
        generator = step_generator(seed, step * size() + rank())
        batch = draw_crops(images, batch_size, CROP, generator)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                posterior = autoencoder.encode(batch).latent_dist
                noise = torch.randn(posterior.mean.shape, generator=generator)
                latents = posterior.mean + posterior.std * noise
                wanted = features(batch)
            output = autoencoder.decode(latents).sample
            distance = feature_distance(features(output), wanted)
        return pixel_loss(output.float() - batch) + FEATURE_WEIGHT * distance

    def on_save(step: int, average: dict[str, Tensor]) -> None:
        quality = check_reconstruction(autoencoder, average, held_out, folder / "recon.png")
        write_json(folder / "quality.json", {"step": step, **quality})

    average = train(decoder, loss_of, plan, folder, on_save)
    decoder.load_state_dict(average, strict=True)
    autoencoder.requires_grad_(True).eval()
