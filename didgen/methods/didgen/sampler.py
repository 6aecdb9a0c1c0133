"""Stable Diffusion as a synthesizer, and DiDGen's: text to image, or a mask to a lesion-mask pair.

Shapes: B batch, C latent channels; images uint8 (H, W, 3), masks bool (H, W).
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import diffusers
import numpy as np
import torch
from torch import Tensor, nn

from didgen.attention.annotation import Annotation, annotate_latents
from didgen.attention.guidance import GuidanceDiverged, Guide
from didgen.backbone.handle import Backbone
from didgen.backbone.placeholder import PLACEHOLDERS
from didgen.backbone.prompts import build_prompt
from didgen.backbone.sampling import (
    MAX_RMS,
    Moved,
    Watch,
    keep_products_in_half,
    sample,
    step_timesteps,
)
from didgen.methods.didgen.layouts import check_layouts, log_doubts
from didgen.methods.protocol import Request, Sample, derive_seed
from didgen.runtime.precision import autocast, pick_precision
from didgen.settings.annotation import AnnotationSettings
from didgen.settings.pairs import Settings as PairSettings
from didgen.settings.sampling import Sampling

LOGGER = logging.getLogger(__name__)

# Eq. 7 reads the maps of the finished latents, "t = 0".
FINAL_TIMESTEP = 0


class LayoutGuide(Protocol):
    """What moves the latents of a batch while they are sampled."""

    @property
    def diverged(self) -> Sequence[GuidanceDiverged]:
        """Images that it could not move."""

    def __call__(
        self, latents: Tensor, timestep: Tensor, step_index: int, embeddings: Tensor, /
    ) -> Moved:
        """See `didgen.backbone.sampling.sample`."""


class DiffusionSynthesizer:
    """Makes images with a fine-tuned Stable Diffusion: what all methods that do so share.

    A method overrides `sampled`, the backbone that a batch is sampled with, `guide`, what moves
    its latents, and `reading`, how masks are read from its images. Where none is read, a sample's
    mask is its request's.
    An image that diverges is sampled again with a seed derived from its own; its score `retries`
    says how often. If it never comes out sound, the sample has a failure.
    """

    def __init__(
        self,
        backbone: Backbone,
        settings: Sampling,
        max_rms: float = MAX_RMS,
        checkpoint: str = "",
    ) -> None:
        """max_rms: see `Watch`. checkpoint: digest of the weights, for the rows of a set, which
        keep 16 letters. The UNet's weights are frozen.
        """
        self.backbone = backbone
        self.settings = settings
        self.max_rms = max_rms
        self.precision = pick_precision(self.settings.precision, backbone.device)
        backbone.unet.requires_grad_(False).eval()
        self.passes = settings.steps
        self.version = f"diffusers-{diffusers.__version__}/torch-{torch.__version__}"
        self.memory_gb = sum(map(gigabytes, backbone.modules()))
        self.checkpoint = checkpoint[:16]

    def sampled(self, requests: Sequence[Request]) -> Backbone:
        """The backbone that these are sampled with."""
        return self.backbone

    def guide(self, requests: Sequence[Request], positions: list[list[int]]) -> LayoutGuide | None:
        """What moves these images' latents; positions: of both tokens in each prompt."""
        return None

    def reading(self, requests: Sequence[Request]) -> AnnotationSettings | None:
        """How masks are read from these images (Eq. 7); None: not at all."""
        return None

    def check(self, requests: Sequence[Request]) -> None:
        """Name the requests whose layouts are doubtful. Raises: `LayoutError` for an unfit one."""
        log_doubts(check_layouts(requests, self.backbone.image_size))

    def synthesize(self, requests: Sequence[Request]) -> list[Sample]:
        """Make one sample per request, in order.

        Raises: `ValueError` for a prompt without the placeholder tokens, `LayoutError` for a mask
        that cannot be followed.
        """
        check_layouts(requests, self.backbone.image_size)
        samples = self._attempt(requests, 0)
        for attempt in range(1, self.settings.retries + 1):
            broken = [i for i, made in enumerate(samples) if _diverged(made)]
            if not broken:
                break
            for i in broken:
                LOGGER.warning("%s: %s; sampled again", requests[i].id, samples[i].failure)
            # The whole batch, each in its place: the bytes of a retried image must not depend on
            # which others broke.
            again = self._attempt(requests, attempt)
            for i in broken:
                samples[i] = again[i]
        return samples

    def _attempt(self, requests: Sequence[Request], attempt: int) -> list[Sample]:
        """One sample a request; from the second attempt on with seeds derived from theirs."""
        prompts = [build_prompt(request.caption, self.backbone.tokenizer) for request in requests]
        # Asked for in any case: a backbone without these tokens was not fine-tuned by DiDGen.
        positions = self._positions(prompts)
        guide, reading = self.guide(requests, positions), self.reading(requests)
        watch = Watch(self.max_rms)
        trail = _Trail(self.settings.steps, reading.last_steps) if reading else None
        with autocast(self.backbone.device, self.precision):
            latents = sample(
                self.sampled(requests),
                prompts,
                [retry_seed(request.seed, attempt) for request in requests],
                steps=self.settings.steps,
                guidance_scale=self.settings.guidance_scale,
                scheduler=self.settings.scheduler,
                guide=guide,
                on_step=trail,
                watch=watch,
            )
        failures = [""] * len(requests)
        for case in watch.diverged:
            failures[case.image] = f"diverged: {case}"
        for lost in guide.diverged if guide else ():
            failures[lost.image] = f"diverged: guidance at step {lost.step_index}"
        decoded = self.backbone.decode(latents)
        images, scores = to_pixels(decoded), {"retries": attempt}
        if reading is None or trail is None:
            return [
                Sample(request, image, request.mask, scores, failure)
                for request, image, failure in zip(requests, images, failures, strict=True)
            ]
        annotation = self._annotate(latents, trail, prompts, positions, decoded, reading)
        return [
            self._pair(request, images[i], annotation, i, failures[i], scores)
            for i, request in enumerate(requests)
        ]

    def _positions(self, prompts: Sequence[str]) -> list[list[int]]:
        return [
            [self.backbone.token_positions(prompt, token)[0] for token in PLACEHOLDERS]
            for prompt in prompts
        ]

    def _annotate(
        self,
        latents: Tensor,
        trail: "_Trail",
        prompts: Sequence[str],
        positions: list[list[int]],
        decoded: Tensor,
        reading: AnnotationSettings,
    ) -> Annotation:
        times = step_timesteps(self.backbone, self.settings.scheduler, self.settings.steps)
        moments = [*trail.latents.items(), (None, latents)]
        with autocast(self.backbone.device, self.precision):
            return annotate_latents(
                self.backbone.unet,
                [z for _, z in moments],
                [FINAL_TIMESTEP if done is None else times[done] for done, _ in moments],
                self.backbone.embed(list(prompts)),
                positions,
                self.backbone.image_size,
                reading,
                images=decoded.detach(),
            )

    def _pair(
        self,
        request: Request,
        image: np.ndarray,
        annotation: Annotation,
        i: int,
        failure: str,
        scores: dict[str, int],
    ) -> Sample:
        mask = annotation.masks[i].cpu().numpy()
        if not failure and bool(annotation.failed[i]):
            failure = "no usable mask: the attention map gave none, or all of the image"
        contrast = round(float(annotation.contrast[i]), 4)
        return Sample(request, image, mask, {"contrast": contrast, **scores}, failure)


class DidgenSynthesizer(DiffusionSynthesizer):
    """Makes images from prompts; for requests with a mask, guides the layout and annotates.

    Eq. 5 and 6 steer the first part of the sampling, Eq. 7 reads the mask at the true last step.
    Its settings are those of pairs, where requests have a mask.
    """

    def guide(self, requests: Sequence[Request], positions: list[list[int]]) -> LayoutGuide | None:
        """Eq. 5 and 6, for requests with a mask."""
        pairs = self.reading(requests)
        if pairs is None:
            return None
        masks = stacked_masks(requests, self.backbone)
        return Guide(self.backbone.unet, masks, positions, pairs.steps, pairs)

    def reading(self, requests: Sequence[Request]) -> PairSettings | None:
        """Eq. 7, for requests with a mask. All have one, or none has.

        Raises: `ValueError` for a mixed batch, and for masks without the settings of pairs.
        """
        with_mask = [request.mask is not None for request in requests]
        if any(with_mask) != all(with_mask):
            raise ValueError("a batch mixes requests with and without a mask; separate them")
        if not all(with_mask):
            return None
        if not isinstance(self.settings, PairSettings):
            raise ValueError(
                "requests with a mask need the settings of pairs, found those of "
                f"{type(self.settings).__module__.rpartition('.')[2]}"
            )
        return self.settings


def stacked_masks(requests: Sequence[Request], backbone: Backbone) -> Tensor:
    """The masks of requests, float (B, 1, H, W) in {0, 1}, on the backbone's device.

    Raises: `ValueError` for a request without one.
    """
    without = [request.id for request in requests if request.mask is None]
    if without:
        raise ValueError(f"{without[0]}: found no mask, expected one to make an image for")
    stacked = np.stack([request.mask for request in requests if request.mask is not None])
    return torch.from_numpy(stacked).float()[:, None].to(backbone.device)


Made = TypeVar("Made", bound=DiffusionSynthesizer)


def open_synthesizer(folder: Path, device: str, make: Callable[[Backbone, str], Made]) -> Made:
    """What `make` gives for the backbone of a fine-tuned diffusers folder and its checksum.

    Raises: `BackboneError`.
    """
    backbone = Backbone.load(str(folder), device=device)
    # Before any weight is converted: the digest is that of the folder.
    synthesizer = make(backbone, backbone.checksum())
    if synthesizer.precision == "bfloat16":
        keep_products_in_half(backbone.unet)
    return synthesizer


def gigabytes(module: nn.Module) -> float:
    """What a network's weights take, GB."""
    return sum(p.numel() * p.element_size() for p in module.parameters()) / 1e9


class _Trail:
    """Keeps the latents at which the last steps start; called after each step."""

    def __init__(self, steps: int, last_steps: int) -> None:
        self._first = steps - last_steps + 1
        self._steps = steps
        self.latents: dict[int, Tensor] = {}

    def __call__(self, done: int, steps: int, latents: Tensor) -> None:
        if self._first <= done < self._steps:
            self.latents[done] = latents.clone()


def retry_seed(seed: int, attempt: int) -> int:
    """The seed of an attempt, counted from 0: the request's own, then others derived from it."""
    return seed if attempt == 0 else derive_seed(seed, "retry", attempt)


def _diverged(made: Sample) -> bool:
    return made.failure.startswith("diverged")


def to_pixels(images: Tensor) -> np.ndarray:
    """Float images (B, 3, H, W) in [-1, 1] to uint8 (B, H, W, 3); out of range is clipped."""
    scaled = ((images.float().clamp(-1, 1) + 1) * 127.5).round()
    return torch.nan_to_num(scaled).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
