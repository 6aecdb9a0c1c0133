"""DiDGen as a synthesizer: text to image, or a layout mask to a lesion-mask pair.

Shapes: B batch, C latent channels; images uint8 (H, W, 3), masks bool (H, W).
"""

from collections.abc import Sequence

import numpy as np
import torch

from didgen.attention.annotation import Annotation, annotate_latents
from didgen.attention.guidance import Guide, LayoutGuidance
from didgen.backbone.handle import Backbone
from didgen.backbone.placeholder import PLACEHOLDERS
from didgen.backbone.precision import Precision, autocast, pick_precision
from didgen.backbone.sampling import sample
from didgen.synthesis.protocol import Request, Sample

# Eq. 7 reads the maps of the finished latents, "t = 0".
FINAL_TIMESTEP = 0


class DidgenSynthesizer:
    """Makes images from prompts; for requests with a mask, guides the layout and annotates.

    Eq. 5 and 6 steer the first part of the sampling, Eq. 7 reads the mask at the true last step.
    """

    def __init__(
        self,
        backbone: Backbone,
        steps: int = 50,
        guidance_scale: float = 7.5,
        scheduler: str = "ddim",
        eta: float = 20.0,
        guided_fraction: float = 0.5,
        reading: str = "minmax",
        self_normalization: str = "sum",
        tau: int = 4,
        precision: Precision = "auto",
    ) -> None:
        self.backbone = backbone
        self.precision = pick_precision(precision, backbone.device)
        self.steps = steps
        self.guidance_scale = guidance_scale
        self.scheduler = scheduler
        self.guidance = LayoutGuidance(
            eta=eta,
            guided_fraction=guided_fraction,
            cross_reading=reading,
            self_normalization=self_normalization,
        )
        self.tau = tau
        backbone.unet.requires_grad_(False).eval()

    def synthesize(self, requests: Sequence[Request]) -> list[Sample]:
        """Make one sample a request, in order. All requests have a mask, or none has.

        Raises: `ValueError` for a mixed batch or a prompt without the placeholder tokens.
        """
        with_mask = [request.mask is not None for request in requests]
        if any(with_mask) != all(with_mask):
            raise ValueError("a batch mixes requests with and without a mask; separate them")
        prompts = [request.prompt for request in requests]
        # Asked for in any case: a backbone without these tokens was not fine-tuned by DiDGen.
        positions = self._positions(prompts)
        guide = self._guide(requests, positions) if all(with_mask) else None
        with autocast(self.backbone.device, self.precision):
            latents = sample(
                self.backbone,
                prompts,
                [request.seed for request in requests],
                steps=self.steps,
                guidance_scale=self.guidance_scale,
                scheduler=self.scheduler,
                guide=guide,
            )
        images = to_pixels(self.backbone.decode(latents))
        finite = torch.isfinite(latents).flatten(1).all(1).tolist()
        failures = ["" if fine else "latents are not finite" for fine in finite]
        if guide is None:
            return [
                Sample(request, image, failure=failure)
                for request, image, failure in zip(requests, images, failures, strict=True)
            ]
        for case in guide.diverged:
            failures[case.image] = f"guidance diverged at step {case.step_index}"
        annotation = self._annotate(latents, prompts, positions)
        return [
            self._pair(request, images[i], annotation, i, failures[i])
            for i, request in enumerate(requests)
        ]

    def _positions(self, prompts: Sequence[str]) -> list[list[int]]:
        return [
            [self.backbone.token_positions(prompt, token)[0] for token in PLACEHOLDERS]
            for prompt in prompts
        ]

    def _guide(self, requests: Sequence[Request], positions: list[list[int]]) -> Guide:
        masks = torch.from_numpy(np.stack([request.mask for request in requests])).float()
        return Guide(
            self.backbone.unet,
            masks[:, None].to(self.backbone.device),
            positions,
            self.steps,
            self.guidance,
        )

    def _annotate(
        self, latents: torch.Tensor, prompts: Sequence[str], positions: list[list[int]]
    ) -> Annotation:
        return annotate_latents(
            self.backbone.unet,
            latents,
            FINAL_TIMESTEP,
            self.backbone.embed(list(prompts)),
            positions,
            self.backbone.image_size,
            tau=self.tau,
        )

    def _pair(
        self, request: Request, image: np.ndarray, annotation: Annotation, i: int, failure: str
    ) -> Sample:
        mask = annotation.masks[i].cpu().numpy()
        if not failure and bool(annotation.failed[i]):
            failure = "no usable mask: the attention map gave none, or all of the image"
        scores = {"contrast": round(float(annotation.contrast[i]), 4)}
        return Sample(request, image, mask, scores, failure)


def to_pixels(images: torch.Tensor) -> np.ndarray:
    """Float images (B, 3, H, W) in [-1, 1] to uint8 (B, H, W, 3); out of range is clipped."""
    scaled = ((images.float().clamp(-1, 1) + 1) * 127.5).round()
    return torch.nan_to_num(scaled).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
