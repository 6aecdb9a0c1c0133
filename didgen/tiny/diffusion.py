"""Last phases of the tiny backbone's pretraining: the text encoder, then the UNet over it.

The text encoder learns which caption belongs to which image, contrastively, as that of Stable
Diffusion was trained (CLIP, Radford et al. 2021), and stays frozen then. Trained through the UNet
alone, it hardly passes on words that change little at most noise levels, such as those of place
and tone.

Shapes: N images, B batch, C channels, h and w latent cells, T token positions, D text width.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from didgen.backbone.handle import Backbone
from didgen.runtime.files import atomic_path
from didgen.tiny.phase import Phase, step_generator, train_phase
from didgen.training.processes import ALONE, Team

PREFIX = "An image of lesion on skin."
EMPTY_SHARE = 0.1
PREFIX_SHARE = 0.1
SNR_CAP = 5.0
JOINT_WIDTH = 128
FIRST_TEMPERATURE = 0.07
NOISE = 0.3


@dataclass(frozen=True)
class CaptionedLatents:
    """What the text encoder learns from; index 0 is the image, 1 its mirror image.

    Shapes: mean and std (N, 2, C, h, w), scaled; ids (N, 2, T), empty and prefix (T,) token ids.
    """

    mean: Tensor
    std: Tensor
    ids: Tensor
    empty: Tensor
    prefix: Tensor


@torch.no_grad()
def encode_images(backbone: Backbone, images: np.ndarray, cache: Path) -> tuple[Tensor, Tensor]:
    """Unscaled moments (N, 2, C, h, w) of images and mirror images; kept in the file `cache`.

    Shapes: images uint8 (N, H, W, 3).
    """
    if cache.exists():
        kept = load_file(cache)
        if len(kept["mean"]) == len(images):
            return kept["mean"], kept["std"]
    means, stds = [], []
    for start in range(0, len(images), 16):
        batch = torch.from_numpy(images[start : start + 16]).permute(0, 3, 1, 2).float() / 127.5 - 1
        both = torch.stack([batch, batch.flip(-1)], dim=1).flatten(0, 1)
        posterior = backbone.vae.encode(both).latent_dist
        means.append(posterior.mean.unflatten(0, (-1, 2)).half())
        stds.append(posterior.std.unflatten(0, (-1, 2)).half())
    kept = {"mean": torch.cat(means), "std": torch.cat(stds)}
    with atomic_path(cache) as temporary:
        save_file(kept, temporary)
    return kept["mean"], kept["std"]


def scaling_factor(mean: Tensor, std: Tensor) -> float:
    """One over the standard deviation of drawn latents."""
    variance = mean.float().var() + std.float().square().mean()
    return float(variance.rsqrt())


def caption_latents(
    backbone: Backbone, mean: Tensor, std: Tensor, captions: np.ndarray
) -> CaptionedLatents:
    """Scale the moments and tokenize prefix and caption; captions (N, 2) str."""
    scale = backbone.vae.config.scaling_factor
    prompts = [f"{PREFIX} {caption}" for caption in captions.reshape(-1).tolist()]
    ids = tokenize(backbone, [*prompts, "", PREFIX])
    return CaptionedLatents(
        mean=mean.float() * scale,
        std=std.float() * scale,
        ids=ids[:-2].unflatten(0, (-1, 2)),
        empty=ids[-2],
        prefix=ids[-1],
    )


def tokenize(backbone: Backbone, prompts: list[str]) -> Tensor:
    """Token ids BT, padded to the prompt limit; a longer prompt is cut there."""
    return backbone.tokenizer(
        prompts,
        padding="max_length",
        truncation=True,
        max_length=backbone.prompt_limit,
        return_tensors="pt",
    ).input_ids


class Matcher(nn.Module):
    """A text encoder and a small network over latents, both ending in one space."""

    def __init__(self, text_encoder: nn.Module, channels: int, cells: int) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.of_text = nn.Linear(text_encoder.config.hidden_size, JOINT_WIDTH)
        widths = (channels, 32, 64, 96)
        layers: list[nn.Module] = []
        for narrow, wide in zip(widths, widths[1:], strict=False):
            layers += [nn.Conv2d(narrow, wide, 3, stride=2, padding=1), nn.GroupNorm(8, wide)]
            layers += [nn.SiLU()]
        # Flattened, not averaged: averages do not know where the lesion lies.
        layers += [nn.Flatten(), nn.Linear(widths[-1] * (cells // 8) ** 2, JOINT_WIDTH)]
        self.of_image = nn.Sequential(*layers)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(FIRST_TEMPERATURE)))

    def forward(self, ids: Tensor, latents: Tensor) -> Tensor:
        """Similarities (B, B) of captions, token ids BT, and latents BChw."""
        text = self.of_text(after_sentence(self.text_encoder(ids)[0], ids))
        image = self.of_image(latents)
        cosines = F.normalize(text.float(), dim=-1) @ F.normalize(image.float(), dim=-1).T
        return self.log_scale.clamp(max=math.log(100.0)).exp() * cosines


def after_sentence(states: Tensor, ids: Tensor) -> Tensor:
    """Mean of the states BTD from each sentence's end on, BD: the padding learns with the end.

    The UNet attends to all positions, so each of these may carry the sentence's meaning.
    """
    end = ids[:, -1:]
    # The padding is the end token too; the limit leaves room for one.
    after = (ids == end).unsqueeze(-1).to(states.dtype)
    return (states * after).sum(1) / after.sum(1)


def matching_loss(similarity: Tensor, ids: Tensor) -> Tensor:
    """Symmetric InfoNCE over similarities (B, B); equal captions are no contrast to each other."""
    equal = (ids[:, None] == ids[None]).all(-1)
    own = torch.eye(len(ids), dtype=torch.bool)
    similarity = similarity.masked_fill(equal & ~own, float("-inf"))
    target = torch.arange(len(ids))
    return (F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target)) / 2


def train_text_encoder(
    backbone: Backbone,
    data: CaptionedLatents,
    phase: Phase,
    batch_size: int,
    folder: Path,
    seed: int,
) -> None:
    """Train the text encoder in place, to the averaged weights of its training."""
    channels, cells = data.mean.shape[2], data.mean.shape[-1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        matcher = Matcher(backbone.text_encoder, channels, cells)

    def loss_of(step: int) -> Tensor:
        generator = step_generator(seed, step)
        picks = torch.randperm(len(data.mean), generator=generator)[:batch_size]
        sides = torch.randint(2, (len(picks),), generator=generator)
        latents, ids = data.mean[picks, sides], data.ids[picks, sides]
        latents = latents + NOISE * torch.randn(latents.shape, generator=generator)
        with torch.autocast("cpu", torch.bfloat16):
            similarity = matcher(ids, latents)
        return matching_loss(similarity, ids)

    matcher.load_state_dict(train_phase(matcher, loss_of, phase, folder))
    backbone.text_encoder.eval()


@dataclass(frozen=True)
class PromptedLatents:
    """What the denoiser learns from: as `CaptionedLatents`, its prompts embedded.

    Shapes: mean and std (N, 2, C, h, w), scaled; prompts (N, 2, T, D); empty and prefix (T, D).
    """

    mean: Tensor
    std: Tensor
    prompts: Tensor
    empty: Tensor
    prefix: Tensor


@torch.no_grad()
def embed_prompts(backbone: Backbone, data: CaptionedLatents, batch_size: int) -> PromptedLatents:
    """Embed every prompt once, in half precision: the text encoder doesn't change any more."""
    ids = torch.cat([data.ids.flatten(0, 1), data.empty[None], data.prefix[None]])
    encoder = backbone.text_encoder.eval()
    parts = [encoder(part)[0].half() for part in ids.split(batch_size)]
    embedded = torch.cat(parts)
    return PromptedLatents(
        mean=data.mean,
        std=data.std,
        prompts=embedded[:-2].unflatten(0, (-1, 2)),
        empty=embedded[-2],
        prefix=embedded[-1],
    )


def stratified_timesteps(count: int, total: int, generator: torch.Generator) -> Tensor:
    """One timestep from each of `count` equal parts of 0..total-1, so that batches vary less."""
    part = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    return (part * total).long().clamp(max=total - 1)


def snr_weights(alphas_cumprod: Tensor, t: Tensor, prediction_type: str) -> Tensor:
    """Min-SNR weights (Hang et al. 2023) of timesteps: min(SNR, 5) / SNR for epsilon.

    For v-prediction both SNRs are one larger, so that high noise counts fully.
    """
    alpha = alphas_cumprod[t]
    snr = alpha / (1 - alpha)
    extra = 0.0 if prediction_type == "epsilon" else 1.0
    return (snr.clamp(max=SNR_CAP) + extra) / (snr + extra)


def denoiser_loss(
    backbone: Backbone,
    unet: nn.Module,
    data: PromptedLatents,
    batch_size: int,
    seed: int,
    step: int,
    team: Team = ALONE,
) -> Tensor:
    """The weighted squared error of this process's part of a batch, drawn by seed and step."""
    generator = step_generator(seed, step * team.size + team.rank)
    batch_size //= team.size
    picks = torch.randint(len(data.mean), (batch_size,), generator=generator)
    sides = torch.randint(2, (batch_size,), generator=generator)
    mean = data.mean[picks, sides]
    latents = mean + data.std[picks, sides] * torch.randn(mean.shape, generator=generator)
    noise = torch.randn(mean.shape, generator=generator)
    chance = torch.rand(batch_size, 1, 1, generator=generator)
    prompts = torch.where(
        chance < EMPTY_SHARE + PREFIX_SHARE, data.prefix, data.prompts[picks, sides]
    )
    prompts = torch.where(chance < EMPTY_SHARE, data.empty, prompts).float()
    alphas = backbone.scheduler.alphas_cumprod
    t = stratified_timesteps(batch_size, len(alphas), generator)
    noisy = backbone.add_noise(latents, noise, t)
    with torch.autocast("cpu", torch.bfloat16):
        output = unet(noisy, t, encoder_hidden_states=prompts).sample
    error = output.float() - backbone.training_target(latents, noise, t)
    weights = snr_weights(alphas, t, backbone.prediction_type)
    return (weights * error.square().mean(dim=(1, 2, 3))).mean()
