"""The tiny backbone's text encoder learns to tell which caption belongs to which image.

Contrastive, as the text encoder of Stable Diffusion was trained (CLIP, Radford et al. 2021).
Trained through the denoiser alone, it hardly passes on words that change little at most noise
levels, such as those of place and tone.

Shapes: N images, B batch, C channels, h and w latent cells, T token positions, D text width.
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from didgen.backbone.handle import Backbone
from didgen.tiny.denoiser import CaptionedLatents
from didgen.tiny.loop import Plan, step_generator, train

JOINT_WIDTH = 128
FIRST_TEMPERATURE = 0.07
NOISE = 0.3


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
    backbone: Backbone, data: CaptionedLatents, plan: Plan, batch_size: int, folder: Path, seed: int
) -> None:
    """Train the text encoder in place, to the averaged weights of its training."""
    folder.mkdir(parents=True, exist_ok=True)
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

    average = train(matcher, loss_of, plan, folder)
    matcher.load_state_dict(average)
    backbone.text_encoder.eval()
