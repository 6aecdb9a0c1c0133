"""First phase of the tiny backbone's pretraining: the autoencoder, on phantom photographs.

Shapes: B batch, C channels, H and W pixels.
"""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F

from didgen.runtime.files import write_json, write_png
from didgen.tiny.loop import Plan, step_generator, train

KL_WEIGHT = 2e-4
EDGE_WEIGHT = 0.5
COLOR_WEIGHT = 4.0
CROP = 64


def autoencoder_loss(autoencoder: AutoencoderKL, images: Tensor, generator: torch.Generator):
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
    plan: Plan,
    folder: Path,
    seed: int,
    batch_size: int = 16,
) -> None:
    """Train in place; the last fifth of the steps sees whole images, a quarter as many.

    Shapes: images and held_out uint8 (N, H, W, 3). Writes state, log, `quality.json` and a sheet
    of held-out reconstructions, `recon.png`, to `folder`. Raises: as `loop.train`.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def loss_of(step: int) -> Tensor:
        generator = step_generator(seed, step)
        whole = step >= 0.8 * plan.steps
        count, size = (batch_size // 4, images.shape[1]) if whole else (batch_size, CROP)
        batch = draw_crops(images, count, size, generator)
        with torch.autocast("cpu", torch.bfloat16):
            return autoencoder_loss(autoencoder, batch, generator)

    def on_save(step: int, average: dict[str, Tensor]) -> None:
        quality = check_reconstruction(autoencoder, average, held_out, folder / "recon.png")
        write_json(folder / "quality.json", {"step": step, **quality})

    average = train(autoencoder, loss_of, plan, folder, on_save)
    autoencoder.load_state_dict(average, strict=True)
    autoencoder.eval()


@torch.no_grad()
def check_reconstruction(
    autoencoder: AutoencoderKL, average: dict[str, Tensor], held_out: np.ndarray, sheet: Path
) -> dict[str, float]:
    """Reconstruct held-out images with the averaged weights: MSE on [-1, 1] and a sheet."""
    batch = torch.from_numpy(held_out[:32]).permute(0, 3, 1, 2).float() / 127.5 - 1
    was_training = autoencoder.training
    autoencoder.eval()
    output = torch.func.functional_call(autoencoder, average, batch).sample
    autoencoder.train(was_training)
    shown = torch.cat([batch[:16], output[:16]]).clamp(-1, 1)
    write_png(sheet, tile(shown, columns=len(shown) // 2))
    return {"mse": F.mse_loss(output, batch).item(), "l1": F.l1_loss(output, batch).item()}


def tile(images: Tensor, columns: int) -> np.ndarray:
    """Images BCHW in [-1, 1], B a multiple of `columns`, as one uint8 (H, W, 3) sheet."""
    pixels = ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    rows = pixels.permute(0, 2, 3, 1).numpy()
    rows = rows.reshape(-1, columns, *rows.shape[1:])
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)
