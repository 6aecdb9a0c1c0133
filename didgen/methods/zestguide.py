"""ZestGuide: images for a mask without training, by a cross-entropy on cross-attention.

Couairon, Careil, Cord, Lathuiliere and Verbeek 2023 (ICCV), "Zero-shot spatial layout conditioning
for text-to-image diffusion models", as their code has it for Stable Diffusion 1.4. Departures:
docs/methods.md.

Shapes: B images, K = 2 segments (lesion, skin) of one token each, H and W of the finest maps, h
heads, N pixels, d channels a head.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from didgen.attention.captures import Positions, QueriesAndKeys, check_positions
from didgen.attention.guidance import MaskGuide, latent_gradient
from didgen.attention.layers import (
    CROSS_SIDE,
    SELF_SIDE,
    AttentionLayer,
    Grid,
    select_layers,
)
from didgen.attention.maps import resize_mask
from didgen.attention.recorder import AttentionRecorder
from didgen.backbone.sampling import AfterStep
from didgen.methods.conditioned import ConditionedSynthesizer
from didgen.methods.didgen.sampler import open_synthesizer, stacked_masks
from didgen.methods.protocol import Request
from didgen.settings.pairs import RivalConfig
from didgen.settings.zestguide import Settings

# The maps' factor, and what keeps the division by a map's maximum finite.
SCALER, SMALLEST_PEAK = 10.0, 1e-4
# Maps and masks are kept this far from 0 and 1 in the cross-entropy.
MARGIN = 1e-3
# Where map and mask are both at most this, there is no gradient: of the scaled maps, and of those
# divided by their maximum.
QUIET, QUIET_NORMALIZED = 0.01, 0.1


class ZestRecorder(AttentionRecorder):
    """Records the cross-attention that ZestGuide reads: at 16x16, and of the way up at 32x32."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__(unet, cross={"resolution": CROSS_SIDE})

    def choose_layers(self, layers: dict[str, AttentionLayer]) -> list[AttentionLayer]:
        """Of all layers of a UNet those that are recorded."""
        fine = select_layers(layers, "cross", SELF_SIDE)
        upward = [layer for layer in fine if layer.name.startswith("up_blocks.")]
        return [*super().choose_layers(layers), *upward]


def segment_maps(captures: Sequence[QueriesAndKeys], positions: Positions) -> Tensor:
    """S, the attention of every pixel to each segment's token, (B, K, H, W) in [0, 1].

    Scores are enlarged (bilinear) to the finest layer's grid, then come the softmax over all text
    positions and the mean over the heads of all layers, each with the same weight. positions: K, or
    (B, K).
    """
    grid = max(capture.layer.grid for capture in captures)
    index = check_positions(positions, *captures[0].key.shape[:2]).to(captures[0].key.device)
    total: Any = 0.0
    with torch.autocast(captures[0].query.device.type, enabled=False):
        for capture in captures:
            query, key = capture.by_head()
            # Scores are linear in the queries: to enlarge these is the same, and smaller.
            query = enlarge(query, capture.layer.grid, grid)
            weights = (query @ key.mT * capture.scale).softmax(dim=-1)
            chosen = index[:, None, None, :].expand(*weights.shape[:3], -1)
            total = total + weights.gather(-1, chosen).sum(dim=1)
    heads = sum(capture.layer.heads for capture in captures)
    return (total / heads).mT.unflatten(-1, grid)


def enlarge(values: Tensor, grid: Grid, larger: Grid) -> Tensor:
    """Values (B, h, N, d) on the pixels of a grid, interpolated (bilinear) to those of another.

    By products with constant matrices: on a GPU the gradient of `interpolate` does not repeat.
    """
    if grid == larger:
        return values
    rows, columns = (
        F.interpolate(torch.eye(n).to(values)[None], size=m, mode="linear")[0]
        for n, m in zip(grid, larger, strict=True)
    )
    spread = torch.einsum("bhyxd,yv,xu->bhvud", values.unflatten(2, grid), rows, columns)
    return spread.flatten(2, 3)


def segment_loss(maps: Tensor, masks: Tensor) -> Tensor:
    """Mean over segments of BCE(s, M) + BCE(s / max s, M) with s = 10 S, one number an image, (B,).

    maps: S (B, K, H, W). masks: of the same shape, soft in [0, 1].
    """
    scaled = SCALER * maps
    normalized = scaled / (scaled.amax((-2, -1), keepdim=True) + SMALLEST_PEAK)
    both = cross_entropy(scaled, masks, QUIET) + cross_entropy(normalized, masks, QUIET_NORMALIZED)
    return both.mean(dim=1)


def cross_entropy(values: Tensor, masks: Tensor, quiet: float) -> Tensor:
    """Binary cross-entropy, mean over pixels, (B, K); no gradient where both are at most `quiet`.

    Shapes: (B, K, H, W) both. Both are clipped to [0.001, 0.999].
    """
    silent = (values <= quiet) & (masks <= quiet)
    values = torch.where(silent, values.detach(), values).clamp(MARGIN, 1 - MARGIN)
    masks = masks.to(values).clamp(MARGIN, 1 - MARGIN)
    # Not PyTorch's function, which ends the run at a map that is not finite.
    return -(masks * values.log() + (1 - masks) * (1 - values).log()).mean((-2, -1))


def unit_step(gradient: Tensor) -> Tensor:
    """The gradient (B, C, h, w) over its image's largest absolute value; 0 where that is 0."""
    largest = gradient.abs().amax((1, 2, 3), keepdim=True)
    return gradient / torch.where(largest == 0, torch.ones_like(largest), largest)


class ZestGuide(MaskGuide):
    """Moves latents after a step against the gradient that the loss had before it.

    `guide(latents, timestep, step_index, cond_embeddings)` is called before each step. In the
    guided range it gives an `AfterStep`: the move -step_size sqrt(1 - alpha-bar_t) g / max |g|, and
    the output of the pass that the gradient g is of; at other steps the latents as they are.
    """

    def __init__(
        self,
        unet: nn.Module,
        masks: Tensor,
        positions: Positions,
        num_steps: int,
        settings: Settings,
        alphas_cumprod: Tensor,
    ) -> None:
        """masks and positions: see `MaskGuide`. alphas_cumprod: alpha-bar of every timestep."""
        super().__init__(unet, masks, positions)
        self.guided = round(settings.guided_fraction * num_steps) if settings.step_size else 0
        self.step_size = settings.step_size
        self.alphas_cumprod = alphas_cumprod

    def __call__(
        self, latents: Tensor, timestep: Tensor | int, step_index: int, cond_embeddings: Tensor
    ) -> Tensor | AfterStep:
        """See the class."""
        if step_index >= self.guided:
            return latents
        self.check_count(latents)
        gradient, output = latent_gradient(
            ZestRecorder(self.unet),
            latents,
            timestep,
            cond_embeddings,
            self._loss,
            early_exit=False,
            keep_output=True,
        )
        sound = torch.isfinite(gradient).flatten(1).all(1)
        self.note(sound, step_index, timestep)
        noise = (1 - float(self.alphas_cumprod[int(timestep)])) ** 0.5
        shift = -self.step_size * noise * unit_step(gradient)
        shift = torch.where(sound[:, None, None, None], shift, 0.0)
        return AfterStep(shift.to(latents.dtype), output)

    def _loss(self, recorder: AttentionRecorder) -> Tensor:
        maps = segment_maps(recorder.captures("cross"), self.positions)
        masks = self.masks.to(maps.device)
        both = torch.cat([masks, 1 - masks], dim=1)
        return segment_loss(maps, resize_mask(both, tuple(maps.shape[-2:])))


class ZestSynthesizer(ConditionedSynthesizer):
    """Makes an image for each mask with `ZestGuide`."""

    def guide(self, requests: Sequence[Request], positions: list[list[int]]) -> ZestGuide:
        """What moves these images' latents."""
        return ZestGuide(
            self.backbone.unet,
            stacked_masks(requests, self.backbone),
            positions,
            self.settings.steps,
            Settings.model_validate(self.settings.own),
            self.backbone.scheduler.alphas_cumprod,
        )


def load(folder: Path, config: RivalConfig, device: str) -> ZestSynthesizer:
    """The synthesizer of a fine-tuned diffusers folder. Raises: `BackboneError`."""
    return open_synthesizer(
        folder,
        device,
        lambda backbone, digest: ZestSynthesizer(backbone, config, checkpoint=digest),
    )
