"""Test-time layout guidance (Eq. 6): before a denoising step, move the latents so that the
attention of the lesion's and the skin's tokens falls where a mask wants them.

Shape legend: B images, K = 2 tokens (lesion, skin), N pixels of the self-attention grid.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from didgen.attention.captures import Positions
from didgen.attention.layers import CROSS_SIDE, SELF_SIDE
from didgen.attention.losses import cross_attention_guidance_loss, self_attention_guidance_loss
from didgen.attention.maps import resize_mask
from didgen.attention.recomputation import recomputed_blocks
from didgen.attention.recorder import AttentionRecorder, CrossRequest, SelfRequest
from didgen.settings.guidance import LayoutGuidance

LOGGER = logging.getLogger(__name__)

# The loss is multiplied by this before the backward pass and the gradient divided by it after:
# exact, being a power of two, and it keeps a half-precision UNet's gradient from underflowing.
LOSS_SCALE = 1024.0


def guided_steps(settings: LayoutGuidance, num_steps: int) -> int:
    """Length of the guided range: the first so many of `num_steps` sampling steps."""
    return round(settings.guided_fraction * num_steps)


def is_guided(settings: LayoutGuidance, step_index: int, num_steps: int) -> bool:
    """Whether a step, counted from 0, is moved."""
    in_range = step_index < guided_steps(settings, num_steps)
    return in_range and step_index % settings.guide_every == 0 and settings.eta > 0.0


def step_size(settings: LayoutGuidance, step_index: int, num_steps: int) -> float:
    """The factor of the gradient at a step, counted from 0; latent units per unit of gradient.

    The schedule "sqrt-linear", eta * sqrt(1 - i / (2 n)) at step i of n, is the released code's.
    """
    if settings.schedule == "constant":
        return settings.eta
    return settings.eta * math.sqrt(1.0 - 0.5 * step_index / num_steps)


@dataclass(frozen=True)
class GuidanceStep:
    """What one guided step saw: L_CA and L_SA and the gradient's root mean square, (B,) each."""

    step_index: int
    cross_loss: Tensor
    self_loss: Tensor
    gradient_rms: Tensor


@dataclass(frozen=True)
class GuidanceDiverged:
    """An image whose loss or gradient stopped being finite; it was not moved at that step."""

    image: int
    step_index: int
    timestep: int


def layout_losses(
    recorder: AttentionRecorder, lesion_masks: Tensor, settings: LayoutGuidance
) -> tuple[Tensor, Tensor]:
    """L_CA and L_SA (B,) of the recorded pass, for masks (B, 1, H, W) of the lesion, [0, 1].

    The cross maps meet soft masks (covered part of each pixel); for Eq. 5, which sums over the
    pixels in M, a pixel is in M if more than half of it is covered. A term of weight 0 is 0.
    """
    masks = torch.cat([lesion_masks, 1.0 - lesion_masks], dim=1)
    zero = masks.new_zeros(len(masks))
    cross_loss, self_loss = zero, zero
    if settings.cross_weight:
        maps = recorder.cross_maps()
        targets = resize_mask(masks, tuple(maps.shape[-2:]))
        cross_loss = cross_attention_guidance_loss(
            maps,
            targets,
            reading=settings.reading,
            sigma=settings.smoothing_sigma,
            normalization=settings.cross_normalization,
        )
    if settings.self_weight:
        lesion = (resize_mask(lesion_masks, recorder.self_grid) > 0.5).to(masks.dtype).flatten(2)
        both = settings.self_regions == "both"
        regions = torch.cat([lesion, 1.0 - lesion], dim=1) if both else lesion  # (B, K, N)
        outside = recorder.apply_self_attention((1.0 - regions).mT).mT
        self_loss = self_attention_guidance_loss(
            outside, regions, normalization=settings.self_normalization
        )
    return cross_loss, self_loss


class MaskGuide:
    """What guides towards masks share: their checks, and which images could not be moved.

    An image whose loss or gradient is not finite stays where it was, and is noted in `diverged`
    (once); the others go on.
    """

    def __init__(self, unet: nn.Module, masks: Tensor, positions: Positions) -> None:
        """masks: lesions (B, 1, H, W), bool or [0, 1], any size with the latents' aspect.

        positions: of the lesion's and the skin's token, as (lesion, skin) or one pair per image.

        Raises ValueError for masks of another shape or range, or other than two positions.
        """
        if masks.ndim != 4 or masks.shape[1] != 1:
            raise ValueError(f"masks have shape {tuple(masks.shape)}, expected (images, 1, H, W)")
        with torch.inference_mode(False):  # tensors of inference mode cannot enter a graph
            masks = masks.detach().clone().float()
            positions = torch.as_tensor(positions, dtype=torch.long).clone()
        if not bool(((masks >= 0.0) & (masks <= 1.0)).all()):
            raise ValueError("masks should lie in [0, 1]; divide 8-bit masks by 255")
        if positions.shape[-1:] != (2,):
            raise ValueError(
                f"positions have shape {tuple(positions.shape)}, expected a lesion and a skin one"
            )
        self.unet = unet
        self.masks = masks
        self.positions = positions
        self.diverged: list[GuidanceDiverged] = []

    def check_count(self, latents: Tensor) -> None:
        """Raises ValueError for another number of latents than of masks."""
        if len(latents) != len(self.masks):
            raise ValueError(f"{len(latents)} latents meet {len(self.masks)} masks; give one each")

    def note(self, sound: Tensor, step_index: int, timestep: Tensor | int) -> None:
        """Note the images that are not `sound` (B,) at a step."""
        known = {case.image for case in self.diverged}
        number = int(torch.as_tensor(timestep).flatten()[0])
        for image in (~sound).nonzero().flatten().tolist():
            if image not in known:
                self.diverged.append(GuidanceDiverged(image, step_index, number))
                LOGGER.warning(
                    "guidance of image %d of the batch gave a non-finite gradient at step %d "
                    "(timestep %d); it is left unguided there",
                    image,
                    step_index,
                    number,
                )


def latent_gradient(
    recorder: AttentionRecorder,
    latents: Tensor,
    timestep: Tensor | int,
    embeddings: Tensor,
    loss: Callable[[AttentionRecorder], Tensor],
    *,
    early_exit: bool,
    keep_output: bool,
) -> tuple[Tensor, Tensor | None]:
    """Gradient to the latents (B, C, h, w) of a loss (B,) on the maps of one conditional pass.

    It is at least in single precision. recorder: of the wanted maps, not in use yet. early_exit:
    end the pass after the last layer that is read. With `keep_output` the pass goes on, without a
    graph, and the UNet's output at these latents comes second.
    """
    # Copies, because a sampling loop may run in inference mode.
    with torch.inference_mode(False), torch.enable_grad():
        z = latents.detach().clone().requires_grad_()
        embeddings = embeddings.detach().clone()
        with (
            recorder,
            recomputed_blocks(recorder.unet, recorder.layers_for(tuple(z.shape[-2:]))),
        ):
            output = recorder.run(
                z,
                timestep,
                embeddings,
                early_exit=early_exit and not keep_output,
                stop_graph=keep_output,
            )
            # The UNet may run in half precision; what is made of its maps does not.
            with torch.autocast(z.device.type, enabled=False):
                losses = loss(recorder)
            # Images do not meet in the UNet, so the sum's gradient is each image's own.
            (gradient,) = torch.autograd.grad(losses.sum() * LOSS_SCALE, z)
    gradient = gradient.to(torch.promote_types(z.dtype, torch.float32)) / LOSS_SCALE
    return gradient, output if keep_output else None


class Guide(MaskGuide):
    """Eq. 6 as a callback of the sampling loop: latents in, guided latents out.

    `guide(latents, timestep, step_index, cond_embeddings)` is called before each step. Within
    the guided range it runs one conditional pass with gradient and returns
    z - eta * grad_z(L_CA + L_SA); at every other step it returns the very tensor it was given
    and builds no graph. Each image's update depends on that image alone, whatever the batch.
    With `reuse_prediction` a guided step returns a pair: the moved latents, and the UNet's
    conditional output at the latents that were given.

    `history` has one GuidanceStep a guided step.

    Cheapest with frozen weights (`unet.requires_grad_(False)`): their gradients are never
    computed, but trainable weights make the pass keep more activations.
    """

    def __init__(
        self,
        unet: nn.Module,
        masks: Tensor,
        positions: Positions,
        num_steps: int,
        settings: LayoutGuidance,
        early_exit: bool = True,
    ) -> None:
        """masks and positions: see `MaskGuide`. early_exit: end the pass after the last layer that
        is read; the result is the same.
        """
        super().__init__(unet, masks, positions)
        self.num_steps = num_steps
        self.settings = settings
        self.early_exit = early_exit
        self.history: list[GuidanceStep] = []

    def __call__(
        self, latents: Tensor, timestep: Tensor | int, step_index: int, cond_embeddings: Tensor
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The latents (B, C, h, w) after Eq. 6, detached; see the class."""
        settings = self.settings
        if not is_guided(settings, step_index, self.num_steps):
            return latents
        self.check_count(latents)
        gradient, cross_loss, self_loss, output = self._gradient(latents, timestep, cond_embeddings)
        size = step_size(settings, step_index, self.num_steps)
        rms = gradient.square().mean((1, 2, 3)).sqrt()
        sound = torch.isfinite(rms) & torch.isfinite(cross_loss + self_loss)
        self.history.append(GuidanceStep(step_index, cross_loss.cpu(), self_loss.cpu(), rms.cpu()))
        self.note(sound, step_index, timestep)
        moved = (latents - size * gradient).to(latents.dtype)
        moved = torch.where(sound[:, None, None, None], moved, latents)
        return moved if output is None else (moved, output)

    def _gradient(
        self, latents: Tensor, timestep: Tensor | int, embeddings: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Gradient of L_CA + L_SA to the latents (B, C, h, w), both losses (B,), the output."""
        settings = self.settings
        cross: CrossRequest = {"resolution": CROSS_SIDE, "positions": self.positions}
        self_: SelfRequest = {"resolution": SELF_SIDE}
        recorder = AttentionRecorder(
            self.unet,
            cross=cross if settings.cross_weight else None,
            self_=self_ if settings.self_weight else None,
            path=settings.guide_layers,
        )
        seen: list[Tensor] = []

        def loss(recorder: AttentionRecorder) -> Tensor:
            masks = self.masks.to(latents.device)
            cross_loss, self_loss = layout_losses(recorder, masks, settings)
            seen[:] = cross_loss.detach(), self_loss.detach()
            return settings.cross_weight * cross_loss + settings.self_weight * self_loss

        gradient, output = latent_gradient(
            recorder,
            latents,
            timestep,
            embeddings,
            loss,
            early_exit=self.early_exit,
            keep_output=settings.reuse_prediction,
        )
        return gradient, *seen, output
