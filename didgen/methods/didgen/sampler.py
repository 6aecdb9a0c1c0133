"""DiDGen as a synthesizer: text to image, or a layout mask to a lesion-mask pair.

Shapes: B batch, C latent channels; images uint8 (H, W, 3), masks bool (H, W).
"""

import logging
from collections.abc import Sequence

import diffusers
import numpy as np
import torch
from torch import Tensor

from didgen.attention.annotation import Annotation, annotate_latents
from didgen.attention.guidance import Guide
from didgen.backbone.handle import Backbone
from didgen.backbone.placeholder import PLACEHOLDERS
from didgen.backbone.prompts import build_prompt
from didgen.backbone.sampling import MAX_RMS, Watch, sample, step_timesteps
from didgen.methods.didgen.layouts import check_layouts, log_doubts
from didgen.methods.protocol import Request, Sample, derive_seed
from didgen.runtime.precision import autocast, pick_precision
from didgen.settings.pairs import Settings as PairSettings
from didgen.settings.sampling import Sampling

LOGGER = logging.getLogger(__name__)

# Eq. 7 reads the maps of the finished latents, "t = 0".
FINAL_TIMESTEP = 0


class DidgenSynthesizer:
    """Makes images from prompts; for requests with a mask, guides the layout and annotates.

    Eq. 5 and 6 steer the first part of the sampling, Eq. 7 reads the mask at the true last step.
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
        """settings: those of pairs, where requests have a mask. max_rms: see `Watch`. checkpoint:
        digest of the weights, for the rows of a set. The UNet's weights are frozen.
        """
        self.backbone = backbone
        self.settings = settings
        self.max_rms = max_rms
        self.precision = pick_precision(self.settings.precision, backbone.device)
        backbone.unet.requires_grad_(False).eval()
        self.passes = settings.steps
        self.version = f"diffusers-{diffusers.__version__}/torch-{torch.__version__}"
        weights = [p for module in backbone.modules() for p in module.parameters()]
        self.memory_gb = sum(p.numel() * p.element_size() for p in weights) / 1e9
        self.checkpoint = checkpoint

    def check(self, requests: Sequence[Request]) -> None:
        """Name the requests whose layouts are doubtful. Raises: `LayoutError` for an unfit one."""
        log_doubts(check_layouts(requests, self.backbone.image_size))

    def synthesize(self, requests: Sequence[Request]) -> list[Sample]:
        """Make one sample per request, in order. All requests have a mask, or none has.

        Raises: `ValueError` for a mixed batch, masks without the settings of pairs or a prompt
        without the placeholder tokens, `LayoutError` for a mask that cannot be followed.
        """
        with_mask = [request.mask is not None for request in requests]
        if any(with_mask) != all(with_mask):
            raise ValueError("a batch mixes requests with and without a mask; separate them")
        if any(with_mask) and not isinstance(self.settings, PairSettings):
            raise ValueError(
                "requests with a mask need the settings of pairs, found those of "
                f"{type(self.settings).__module__.rpartition('.')[2]}"
            )
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
        settings, with_mask = self.settings, requests[0].mask is not None
        pairs = settings if with_mask and isinstance(settings, PairSettings) else None
        guide = self._guide(requests, positions, pairs) if pairs else None
        watch = Watch(self.max_rms)
        trail = _Trail(pairs.steps, pairs.last_steps) if pairs else None
        with autocast(self.backbone.device, self.precision):
            latents = sample(
                self.backbone,
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
        if pairs is None or trail is None:
            return [
                Sample(request, image, scores=scores, failure=failure)
                for request, image, failure in zip(requests, images, failures, strict=True)
            ]
        annotation = self._annotate(latents, trail, prompts, positions, decoded, pairs)
        return [
            self._pair(request, images[i], annotation, i, failures[i], scores)
            for i, request in enumerate(requests)
        ]

    def _positions(self, prompts: Sequence[str]) -> list[list[int]]:
        return [
            [self.backbone.token_positions(prompt, token)[0] for token in PLACEHOLDERS]
            for prompt in prompts
        ]

    def _guide(
        self, requests: Sequence[Request], positions: list[list[int]], settings: PairSettings
    ) -> Guide:
        stacked = np.stack([request.mask for request in requests if request.mask is not None])
        masks = torch.from_numpy(stacked).float()
        return Guide(
            self.backbone.unet,
            masks[:, None].to(self.backbone.device),
            positions,
            settings.steps,
            settings,
        )

    def _annotate(
        self,
        latents: Tensor,
        trail: "_Trail",
        prompts: Sequence[str],
        positions: list[list[int]],
        decoded: Tensor,
        settings: PairSettings,
    ) -> Annotation:
        times = step_timesteps(self.backbone, settings.scheduler, settings.steps)
        moments = [*trail.latents.items(), (None, latents)]
        with autocast(self.backbone.device, self.precision):
            return annotate_latents(
                self.backbone.unet,
                [z for _, z in moments],
                [FINAL_TIMESTEP if done is None else times[done] for done, _ in moments],
                self.backbone.embed(list(prompts)),
                positions,
                self.backbone.image_size,
                settings,
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
