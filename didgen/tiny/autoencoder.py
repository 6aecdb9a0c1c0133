"""First phases of the tiny backbone's pretraining: the autoencoder, then its decoder alone.

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

from didgen.runtime.files import write_json, write_png
from didgen.tiny.phase import Averages, Phase, step_generator, train_phase
from didgen.training.processes import joined

KL_WEIGHT = 2e-4
EDGE_WEIGHT = 0.5
COLOR_WEIGHT = 4.0
FEATURE_WEIGHT = 1.0
CROP = 64


def autoencoder_loss(
    autoencoder: AutoencoderKL, images: Tensor, generator: torch.Generator
) -> Tensor:
    """L1 of pixels, edges (pixel differences) and coarse color, + a small KL; BCHW in [-1, 1].

    Without the color term a small autoencoder spends its four channels on sharpness and lets
    yellow and purple fade to brown.
    """
    posterior = autoencoder.encode(images).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=generator)
    output = autoencoder.decode(posterior.mean + posterior.std * noise).sample.float()
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    return pixel_loss(output - images) + KL_WEIGHT * kl


def pixel_loss(error: Tensor) -> Tensor:
    """L1 of pixels, edges (pixel differences) and coarse color of an error BCHW."""
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    coarse = F.avg_pool2d(error, 4)
    color = (coarse - coarse.mean(dim=1, keepdim=True)).abs().mean()
    return error.abs().mean() + EDGE_WEIGHT * edges + COLOR_WEIGHT * color


def draw_crops(images: np.ndarray, count: int, size: int, generator: torch.Generator) -> Tensor:
    """Random crops, turned, mirrored and with other colors, so that photographs also fit.

    Shapes: images uint8 (N, H, W, 3) -> float (count, 3, size, size) in [-1, 1].
    """
    side = images.shape[1]
    picks = torch.randint(len(images), (count,), generator=generator).tolist()
    corners = torch.randint(side - size + 1, (count, 2), generator=generator).tolist()
    turns = torch.randint(8, (count,), generator=generator).tolist()
    crops = []
    for pick, (top, left), turn in zip(picks, corners, turns, strict=True):
        crop = np.rot90(images[pick, top : top + size, left : left + size], turn % 4)
        crops.append(torch.from_numpy(np.ascontiguousarray(crop[:, ::-1] if turn > 3 else crop)))
    batch = torch.stack(crops).permute(0, 3, 1, 2).float() / 127.5 - 1
    return jitter_colors(batch, generator)


def jitter_colors(batch: Tensor, generator: torch.Generator) -> Tensor:
    """Scale and shift the colors of half of the images, each channel on its own; clipped."""
    count = len(batch)
    scale = 1 + 0.3 * (2 * torch.rand(count, 3, 1, 1, generator=generator) - 1)
    shift = 0.25 * (2 * torch.rand(count, 3, 1, 1, generator=generator) - 1)
    chosen = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
    return torch.where(chosen, (batch * scale + shift).clamp(-1, 1), batch)


def train_autoencoder(
    autoencoder: AutoencoderKL,
    images: np.ndarray,
    held_out: np.ndarray,
    phase: Phase,
    folder: Path,
    seed: int,
    batch_size: int,
) -> None:
    """Train in place; the last fifth of the steps sees whole images, a quarter as many.

    Shapes: images and held_out uint8 (N, H, W, 3). Writes state, log, `quality.json` and a sheet
    of held-out reconstructions, `recon.png`, to `folder`. Raises: as `train_phase`.
    """

    def loss_of(step: int) -> Tensor:
        generator = step_generator(seed, step)
        whole = step >= 0.8 * phase.steps
        count, size = (batch_size // 4, images.shape[1]) if whole else (batch_size, CROP)
        batch = draw_crops(images, count, size, generator)
        with torch.autocast("cpu", torch.bfloat16):
            return autoencoder_loss(autoencoder, batch, generator)

    def evaluate(step: int, averages: Averages) -> None:
        check_reconstruction(autoencoder, averages, held_out, folder, step)

    averages = train_phase(autoencoder, loss_of, phase, folder, evaluate=evaluate)
    autoencoder.load_state_dict(averages, strict=True)
    autoencoder.eval()


def feature_distance(features: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """Mean squared distance of feature vectors of length 1, summed over layers; in [0, 4 L].

    Each layer's features are (B, C, h, w); a vector is one cell's C values.
    """
    return sum(
        (F.normalize(a.float(), dim=1) - F.normalize(b.float(), dim=1)).square().sum(1).mean()
        for a, b in zip(features, wanted, strict=True)
    )


def refine_decoder(
    autoencoder: AutoencoderKL,
    features: nn.Module,
    images: np.ndarray,
    held_out: np.ndarray,
    phase: Phase,
    folder: Path,
    seed: int,
    batch_size: int,
) -> None:
    """Train the decoder in place, the encoder frozen; `batch_size` crops a process and step.

    features: images BCHW in [-1, 1] -> a list of feature maps; its weights are not trained.
    Shapes: images and held_out uint8 (N, H, W, 3). Writes state, log, `quality.json` and a sheet
    of held-out reconstructions to `folder`. Raises: as `train_phase`.
    """
    autoencoder.requires_grad_(False)
    decoder = nn.ModuleDict(
        {"decoder": autoencoder.decoder, "post_quant_conv": autoencoder.post_quant_conv}
    ).requires_grad_(True)
    features.requires_grad_(False).eval()

    def evaluate(step: int, averages: Averages) -> None:
        check_reconstruction(autoencoder, averages, held_out, folder, step)

    with joined(cpu=True) as team:

        def loss_of(step: int) -> Tensor:
            generator = step_generator(seed, step * team.size + team.rank)
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

        averages = train_phase(decoder, loss_of, phase, folder, team, evaluate)
    decoder.load_state_dict(averages, strict=True)
    autoencoder.requires_grad_(True).eval()


@torch.no_grad()
def check_reconstruction(
    autoencoder: AutoencoderKL, averages: Averages, held_out: np.ndarray, folder: Path, step: int
) -> None:
    """Reconstruct held-out images with averaged weights: errors on [-1, 1] and a sheet."""
    batch = torch.from_numpy(held_out[:32]).permute(0, 3, 1, 2).float() / 127.5 - 1
    was_training = autoencoder.training
    autoencoder.eval()
    output = torch.func.functional_call(autoencoder, averages, batch).sample
    autoencoder.train(was_training)
    shown = torch.cat([batch[:16], output[:16]]).clamp(-1, 1)
    write_png(folder / "recon.png", tile(shown, columns=len(shown) // 2))
    errors = {"mse": F.mse_loss(output, batch).item(), "l1": F.l1_loss(output, batch).item()}
    write_json(folder / "quality.json", {"step": step, **errors})


def tile(images: Tensor, columns: int) -> np.ndarray:
    """Images BCHW in [-1, 1], B a multiple of `columns`, as one uint8 (H, W, 3) sheet."""
    pixels = ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    rows = pixels.permute(0, 2, 3, 1).numpy()
    rows = rows.reshape(-1, columns, *rows.shape[1:])
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)
