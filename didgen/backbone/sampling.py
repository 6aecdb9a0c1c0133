"""Drawing latents: classifier-free guidance with DDIM or DPM-Solver++, one seed an image.

Shapes: B batch, C channels, h and w latent cells, T token positions, D text width.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from didgen.backbone.handle import Backbone

Guide = Callable[[Tensor, Tensor, int, Tensor], Tensor]
OnStep = Callable[[int, int, Tensor], None]


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

    return DDIMScheduler.from_config(config)


def dpm_solver(config: Any) -> Any:
    """DPM-Solver++ (Lu et al. 2022), second order and multistep, on a model's own schedule."""
    from diffusers import DPMSolverMultistepScheduler

    return DPMSolverMultistepScheduler.from_config(
        config, algorithm_type="dpmsolver++", solver_order=2
    )


SCHEDULERS: dict[str, Callable[[Any], Any]] = {"ddim": ddim, "dpm++": dpm_solver}


def sample(
    backbone: Backbone,
    prompts: Sequence[str],
    seeds: Sequence[int],
    steps: int = 50,
    guidance_scale: float = 7.5,
    scheduler: str = "ddim",
    guide: Guide | None = None,
    on_step: OnStep | None = None,
    negative_prompt: str = "",
) -> Tensor:
    """Draw one latent a prompt and seed -> BChw; an image depends on nothing else of its batch.

    `guide(latents, timestep, step_index, embeddings_BTD)` returns moved latents before each step;
    it is called without gradients on and may turn them on. `on_step(done, steps, latents)` is
    called after each step. A guidance scale of 1 needs no unconditional pass and has none.

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
        for index, timestep in enumerate(solver.timesteps):
            if guide is not None:
                latents = guide(latents, timestep, index, embeddings).detach()
            output = guided_output(backbone, latents, timestep, both, guidance_scale)
            latents = solver.step(output, timestep, latents).prev_sample
            if on_step is not None:
                on_step(index + 1, len(solver.timesteps), latents)
    return latents.clone()


def guided_output(
    backbone: Backbone, latents: Tensor, timestep: Tensor, both: Tensor, guidance_scale: float
) -> Tensor:
    """The UNet's output after classifier-free guidance, BChw.

    Shapes: both is (2B, T, D), negative prompts first, or (B, T, D) at a guidance scale of 1.
    """
    if guidance_scale == 1:
        return backbone.predict(latents, timestep, both)
    doubled = torch.cat([latents, latents])
    without, with_text = backbone.predict(doubled, timestep, both).chunk(2)
    return without + guidance_scale * (with_text - without)


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
