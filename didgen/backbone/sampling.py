"""Drawing latents: classifier-free guidance with DDIM or DPM-Solver++, one seed an image.

Shapes: B batch, C channels, h and w latent cells, T token positions, D text width.
"""

import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from didgen.backbone.handle import Backbone
from didgen.runtime.reproducible import NoDeterministicKernel, strict_kernels

LOGGER = logging.getLogger(__name__)
OnStep = Callable[[int, int, Tensor], None]


@dataclass(frozen=True)
class AfterStep:
    """A guide's answer that moves the latents after the step: `shift` BChw is added to what the
    scheduler makes of the latents that the guide was given. `output`: the UNet's prompted output
    at these, BChw."""

    shift: Tensor
    output: Tensor


Moved: TypeAlias = Tensor | tuple[Tensor, Tensor] | AfterStep
Guide = Callable[[Tensor, Tensor, int, Tensor], Moved]

# Diffusion keeps the latents' variance: their root mean square is about 1 at every step.
MAX_RMS = 20.0


def initial_noise(
    seeds: Sequence[int],
    shape: tuple[int, int, int],
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Standard normal noise BChw, each image from a CPU generator with its own seed.

    The noise of a seed is the same on every device and in every batch.
    """
    draws = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(draws).to(device, dtype)


def ddim(config: Any) -> Any:
    """DDIM (Song et al. 2021) without added noise, on a model's own noise schedule."""
    from diffusers import DDIMScheduler

    # Where a model's configuration says nothing of it, this class would clip latents like pixels.
    return DDIMScheduler.from_config(config, clip_sample=False)


def dpm_solver(config: Any) -> Any:
    """DPM-Solver++ (Lu et al. 2022), second order and multistep, on a model's own schedule."""
    from diffusers import DPMSolverMultistepScheduler

    return DPMSolverMultistepScheduler.from_config(
        config, algorithm_type="dpmsolver++", solver_order=2
    )


SCHEDULERS: dict[str, Callable[[Any], Any]] = {"ddim": ddim, "dpm++": dpm_solver}


def step_timesteps(backbone: Backbone, scheduler: str, steps: int) -> list[int]:
    """The timestep at which each sampling step starts, the noisiest first."""
    solver = SCHEDULERS[scheduler](backbone.scheduler.config)
    solver.set_timesteps(steps)
    return [int(t) for t in solver.timesteps]


@dataclass(frozen=True)
class Divergence:
    """An image of the batch whose latents broke: after which step, and their RMS (inf, nan)."""

    image: int
    step_index: int
    rms: float

    def __str__(self) -> str:
        if self.rms < float("inf"):
            return f"latents exploded at step {self.step_index} (root mean square {self.rms:.3g})"
        return f"latents are not finite at step {self.step_index}"


class Watch:
    """Notes, step by step, the images whose latents are not finite or explode.

    max_rms: the largest root mean square that counts as sound. `diverged` has each broken image
    once. Its latents become zeros, so that nothing of it can reach the others.
    """

    def __init__(self, max_rms: float = MAX_RMS) -> None:
        if not max_rms > 0:
            raise ValueError(f"max_rms is {max_rms}, expected a positive number")
        self.max_rms = max_rms
        self.diverged: list[Divergence] = []

    def __call__(self, latents: Tensor, step_index: int) -> Tensor:
        """The latents BChw, zeros where an image broke."""
        rms = latents.float().square().mean((1, 2, 3)).sqrt()
        sound = rms <= self.max_rms  # false for nan
        if bool(sound.all()):
            return latents
        known = {case.image for case in self.diverged}
        for image in (~sound).nonzero().flatten().tolist():
            if image not in known:
                self.diverged.append(Divergence(image, step_index, float(rms[image])))
        return torch.where(sound[:, None, None, None], latents, 0.0)


def sample(
    backbone: Backbone,
    prompts: Sequence[str],
    seeds: Sequence[int],
    steps: int,
    guidance_scale: float,
    scheduler: str,
    guide: Guide | None = None,
    on_step: OnStep | None = None,
    negative_prompt: str = "",
    watch: Watch | None = None,
) -> Tensor:
    """Draw one latent a prompt and seed -> BChw; an image depends on nothing else of its batch.

    `guide(latents, timestep, step_index, embeddings_BTD)` returns moved latents before each step;
    it is called without gradients on and may turn them on. If it returns (moved latents, UNet
    output), that output is taken as the prompted prediction at the latents it was given, and the
    step makes the other one only; so it does for an `AfterStep`. `on_step(done, steps, latents)`
    is called after each step. `watch` notes the images that diverge; when all have, sampling ends
    there. A guidance scale of 1 needs no unconditional pass and has none.

    Raises: ValueError for unequal or empty lists, steps below 1, or an unknown scheduler;
    PromptTooLong.
    """
    _check(prompts, seeds, steps, scheduler)
    # Tensors made in inference mode can never join a graph, so a guide rules it out.
    mode = torch.inference_mode() if guide is None else torch.no_grad()
    with mode:
        embeddings = backbone.embed(list(prompts))
        both = embeddings
        if guidance_scale != 1:
            negative = backbone.embed([negative_prompt]).expand_as(embeddings)
            both = torch.cat([negative, embeddings])
        solver = SCHEDULERS[scheduler](backbone.scheduler.config)
        solver.set_timesteps(steps, device=backbone.device)
        latents = initial_noise(seeds, backbone.latent_shape, backbone.device, backbone.dtype)
        latents = latents * solver.init_noise_sigma
        steer = None if guide is None else _Steady(guide)
        for index, timestep in enumerate(solver.timesteps):
            answer = latents if steer is None else steer(latents, timestep, index, embeddings)
            shift = None
            if isinstance(answer, AfterStep):
                moved, shift = latents, answer.shift.detach()
                output = guided_output(
                    backbone, latents, timestep, both, guidance_scale, answer.output.to(latents)
                )
            elif isinstance(answer, tuple):
                moved, with_text = (part.detach() for part in answer)
                output = guided_output(
                    backbone, latents, timestep, both, guidance_scale, with_text.to(latents)
                )
                output = keep_x0(backbone, output, moved - latents, timestep)
            else:
                moved = answer.detach()
                output = guided_output(backbone, moved, timestep, both, guidance_scale)
            latents = solver.step(output, timestep, moved).prev_sample
            if shift is not None:
                latents = latents + shift.to(latents)
            if watch is not None:
                latents = watch(latents, index)
                if len(watch.diverged) == len(latents):
                    break
            if on_step is not None:
                on_step(index + 1, len(solver.timesteps), latents)
    return latents.clone()


class _Steady:
    """A guide held to kernels that repeat, where they should; let go where it needs another."""

    def __init__(self, guide: Guide) -> None:
        self._guide, self._strict = guide, True

    def __call__(self, *given: Any) -> Moved:
        try:
            with strict_kernels() if self._strict else contextlib.nullcontext():
                return self._guide(*given)
        except NoDeterministicKernel as error:
            LOGGER.warning("guidance will not repeat to the last bit: %s", error)
            self._strict = False
            return self._guide(*given)


def guided_output(
    backbone: Backbone,
    latents: Tensor,
    timestep: Tensor,
    both: Tensor,
    guidance_scale: float,
    with_text: Tensor | None = None,
) -> Tensor:
    """The UNet's output after classifier-free guidance, BChw.

    Shapes: both is (2B, T, D), negative prompts first, or (B, T, D) at a guidance scale of 1.
    with_text: the prompted output, BChw, where it is known already.
    """
    if guidance_scale == 1:
        return backbone.predict(latents, timestep, both) if with_text is None else with_text
    if with_text is None:
        doubled = torch.cat([latents, latents])
        without, with_text = backbone.predict(doubled, timestep, both).chunk(2)
    else:
        without = backbone.predict(latents, timestep, both[: len(latents)])
    return without + guidance_scale * (with_text - without)


def keep_x0(backbone: Backbone, output: Tensor, shift: Tensor, timestep: Tensor | int) -> Tensor:
    """The output that, at latents moved by `shift`, stands for the same clean latents.

    A prediction made before a move is carried over so: the network's view of the clean image
    hardly depends on a small move of noisy latents, its view of the noise does.
    """
    alpha = backbone.scheduler.alphas_cumprod[int(timestep)].item()
    a, s = alpha**0.5, (1 - alpha) ** 0.5
    return output + (shift if backbone.prediction_type == "epsilon" else a * shift) / s


def keep_products_in_half(unet: nn.Module) -> None:
    """Convert, in place, the weights that `autocast` would convert for every product anyway.

    For a UNet that from now on only samples, in bfloat16 and under `autocast`: its output stays
    the same to the bit, the weights take half the memory, and a graph through it keeps no
    converted copies of them. The first convolution stays in float32, because a UNet's number type,
    which latents follow, is read from its first weights; so do norms, which want the range.
    """
    for name, module in unet.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and name != "conv_in":
            module.to(torch.bfloat16)


def _check(prompts: Sequence[str], seeds: Sequence[int], steps: int, scheduler: str) -> None:
    if len(prompts) != len(seeds) or not prompts:
        raise ValueError(
            f"found {len(prompts)} prompts and {len(seeds)} seeds: expected one seed a prompt, "
            "and at least one"
        )
    if steps < 1:
        raise ValueError(f"steps is {steps}: expected at least 1")
    if scheduler not in SCHEDULERS:
        raise ValueError(f"unknown scheduler {scheduler!r}: expected {' or '.join(SCHEDULERS)}")
