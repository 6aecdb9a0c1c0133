"""Attention Refocusing: images for a mask without training, by losses on cross- and self-attention.

Phung, Ge and Huang 2024 (CVPR), "Grounded text-to-image synthesis with attention refocusing":
cross-attention by the masks of their supplement or the boxes of their code. Departures:
docs/methods.md.

Shapes: B images, K = 2 tokens (lesion, skin), S text positions, H and W of the maps, N = H * W.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from didgen.attention.captures import Positions
from didgen.attention.guidance import MaskGuide, latent_gradient
from didgen.attention.layers import CROSS_SIDE
from didgen.attention.losses import weighted_mean
from didgen.attention.maps import gaussian_smooth, resize_mask
from didgen.attention.recorder import AttentionRecorder
from didgen.methods.conditioned import ConditionedSynthesizer
from didgen.methods.didgen.sampler import open_synthesizer, stacked_masks
from didgen.methods.protocol import Request
from didgen.settings.attention_refocusing import Settings
from didgen.settings.pairs import RivalConfig

# Maps are multiplied by this before the softmax over the words.
SHARPNESS = 100.0
# The filter that the authors call sigma 0.5 has this standard deviation, in cells of a map.
SMOOTHING = 0.5**0.5
# Moving goes on within a step while the least of the tokens' largest values inside their regions is
# below the first, and, in early steps, the loss above the second.
PLACED, SMALL_LOSS = 0.2, 0.1
# Steps in which the box losses count a token that is placed already.
ALWAYS = 15


@dataclass(frozen=True)
class Plan:
    """What is done at a step: moves at most, the loss's share of its scale, whether a small loss
    ends it too."""

    moves: int
    share: float
    by_loss: bool


def plan_of(step_index: int) -> Plan | None:
    """The authors' schedule at a step, counted from 0; None: the step is not guided."""
    if step_index < 10:
        moves = 2 if step_index < 2 else 6 if step_index < 5 else 3
        return Plan(moves, 1.0 if step_index < 5 else 0.75, True)
    if step_index % 5 or step_index > 35:
        return None
    return Plan(2, 0.75 if step_index < 20 else 0.25, False)


def word_maps(maps: Tensor) -> Tensor:
    """Cross maps (B, S - 2, H, W) of all positions but the first and the last, as a softmax over
    these: which word each pixel belongs to, in [0, 1]."""
    return (SHARPNESS * maps).softmax(dim=1)


def mask_loss(maps: Tensor, masks: Tensor) -> Tensor:
    """CAR with masks, the mean over tokens of 1 - mean of A in M + mean of A outside, (B,).

    maps: (B, K, H, W). masks: of the same shape, soft in [0, 1].
    """
    return (1 - weighted_mean(maps, masks) + weighted_mean(maps, 1 - masks)).mean(dim=1)


def box_loss(maps: Tensor, regions: Tensor, step_index: int) -> Tensor:
    """CAR with boxes as released, of each token's largest value inside and outside, (B,).

    maps: (B, K, H, W). regions: bool of the same shape; an empty one adds nothing.
    """
    inside, outside = largest(maps, regions, empty=1.0), largest(maps, ~regions, empty=0.0)
    early = step_index < ALWAYS
    missing = torch.where((inside < 0.2) | early, 1 - inside, 0.0)
    missing = torch.where(inside < 0.1, 6 * (1 - inside), missing)
    spilt = torch.where((outside > 0.1) | early, outside, 0.0)
    spilt = torch.where(outside > 0.15, 4 * outside, spilt)
    return (missing + spilt).mean(dim=1)


def largest(maps: Tensor, regions: Tensor, empty: float) -> Tensor:
    """The largest value of each map (B, K, H, W) in its region (bool), (B, K); `empty` in none."""
    found = torch.where(regions, maps, -1.0).amax((-2, -1))
    return torch.where(regions.any(-1).any(-1), found, empty)


def leaving(outside: Tensor, regions: Tensor) -> Tensor:
    """SAR as released: of the attention of a region's pixels, the share that leaves it, (B,).

    The printed sum counts a token by the size of its region, over that of all else: the skin's term
    is many times the lesion's, and images did not follow their masks under it (docs/methods.md).
    outside: (B, K, H, W), for each pixel its self-attention outside token i's region: A_S applied
    to 1 - M. regions: bool of the same shape.
    """
    return weighted_mean(outside, regions.to(outside)).mean(dim=1)


def bounding_boxes(masks: Tensor) -> Tensor:
    """The bounding box of each mask (B, 1, H, W) in {0, 1}, as a mask."""
    box = torch.ones_like(masks)
    for side, across in ((-2, -1), (-1, -2)):
        taken = masks.amax(across, keepdim=True)
        before, after = (
            taken.cummax(side).values,
            taken.flip(side).cummax(side).values.flip(side),
        )
        box = box * torch.minimum(before, after)
    return box


class RefocusingGuide(MaskGuide):
    """Moves latents before a step, several times: z <- z - grad of s (CAR + SAR).

    `guide(latents, timestep, step_index, cond_embeddings)` is called before each step. At a step of
    `plan_of` it moves each image until it is placed, at least once; an image that is done waits for
    the others of its batch. `moves` counts what each image had, (B,).
    """

    def __init__(
        self, unet: nn.Module, masks: Tensor, positions: Positions, settings: Settings
    ) -> None:
        """masks and positions: see `MaskGuide`; masks in {0, 1}."""
        super().__init__(unet, masks, positions)
        if settings.variant == "box":
            self.masks = bounding_boxes(self.masks)
        self.settings = settings
        self.moves = torch.zeros(len(self.masks), dtype=torch.long)

    def __call__(
        self, latents: Tensor, timestep: Tensor | int, step_index: int, cond_embeddings: Tensor
    ) -> Tensor:
        """The moved latents (B, C, h, w), detached; see the class."""
        plan = plan_of(step_index)
        if plan is None or not self.settings.loss_scale:
            return latents
        self.check_count(latents)
        scale = plan.share * self.settings.loss_scale
        active = torch.ones(len(latents), dtype=torch.bool, device=latents.device)
        for _ in range(plan.moves):
            gradient, total, inside = self._gradient(
                latents, timestep, step_index, cond_embeddings, scale
            )
            sound = torch.isfinite(gradient).flatten(1).all(1) & torch.isfinite(total)
            self.note(sound | ~active, step_index, timestep)
            active = active & sound
            moved = (latents - gradient).to(latents.dtype)
            latents = torch.where(active[:, None, None, None], moved, latents)
            self.moves += active.cpu()
            active = active & (inside < PLACED)
            if plan.by_loss:
                active = active & (total > SMALL_LOSS)
            if not bool(active.any()):
                break
        return latents

    def _gradient(
        self,
        latents: Tensor,
        timestep: Tensor | int,
        step_index: int,
        embeddings: Tensor,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient of the scaled loss (B, C, h, w), that loss, and `losses`' second, (B,) each."""
        seen: list[Tensor] = []

        def loss(recorder: AttentionRecorder) -> Tensor:
            losses, inside = self.losses(recorder, step_index)
            seen[:] = (scale * losses).detach(), inside.detach()
            return scale * losses

        gradient, _ = latent_gradient(
            AttentionRecorder(
                self.unet, cross={"resolution": CROSS_SIDE}, self_={"resolution": CROSS_SIDE}
            ),
            latents,
            timestep,
            embeddings,
            loss,
            early_exit=True,
            keep_output=False,
        )
        total, inside = seen
        return gradient, total, inside

    def losses(self, recorder: AttentionRecorder, step_index: int) -> tuple[Tensor, Tensor]:
        """CAR + SAR of the recorded pass, and the least of the tokens' largest values inside, (B,)
        both."""
        captures = recorder.captures("cross")
        words = word_maps(recorder.cross_maps(range(1, captures[0].key.shape[1] - 1)))
        # The first position is left out.
        chosen = (self.positions.to(words.device) - 1).expand(len(words), -1)
        maps = words.take_along_dim(chosen[:, :, None, None], dim=1)
        maps = gaussian_smooth(maps, SMOOTHING)
        lesion = self.masks.to(maps)
        lesion = resize_mask(lesion, tuple(maps.shape[-2:]))
        masks = torch.cat([lesion, 1 - lesion], dim=1)
        regions = torch.cat([lesion > 0.5, lesion <= 0.5], dim=1)
        inside = largest(maps, regions, empty=1.0).amin(dim=1)
        flat = regions.to(maps).flatten(2)
        outside = recorder.apply_self_attention((1 - flat).mT).mT
        spread = leaving(outside.unflatten(-1, regions.shape[-2:]), regions)
        if self.settings.variant == "mask":
            return mask_loss(maps, masks) + spread, inside
        return box_loss(maps, regions, step_index) + spread, inside


class RefocusingSynthesizer(ConditionedSynthesizer):
    """Makes an image for each mask with `RefocusingGuide`."""

    def guide(self, requests: Sequence[Request], positions: list[list[int]]) -> RefocusingGuide:
        """What moves these images' latents."""
        return RefocusingGuide(
            self.backbone.unet,
            stacked_masks(requests, self.backbone),
            positions,
            Settings.model_validate(self.settings.own),
        )


def load(folder: Path, config: RivalConfig, device: str) -> RefocusingSynthesizer:
    """The synthesizer of a fine-tuned diffusers folder. Raises: `BackboneError`."""
    return open_synthesizer(
        folder,
        device,
        lambda backbone, digest: RefocusingSynthesizer(backbone, config, checkpoint=digest),
    )
