"""What guided pairs cost against plain sampling, and what the released design costs.

    python -m benchmarks.guidance --backbone tiny|sd21|sd21-half [--steps 4] [--batch 1]
        [--precision float32|bfloat16] [--variants plain default down released] [--repeats 2]

Random weights. "plain" is diffusers' own StableDiffusionPipeline with classifier-free guidance;
the others make guided pairs of the same seeds: sampling with Eq. 6 in the first half of the
steps, then the pass that reads the masks (Eq. 7). Text encoder and autoencoder are left out on
both sides. "50 steps" puts the measured steps together to an image of 50 steps, 25 in the guided
range. Processor time, the best of a few turns within one run: read the ratios. Peak: memory over
the loaded model, in a turn of its own. The released design makes one image at a time.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from benchmarks.measuring import Clock, peak_over, resident
from benchmarks.random_backbones import NAMES, RandomBackbone, random_backbone
from benchmarks.released_design import sample_released
from didgen.attention.annotation import annotate_latents
from didgen.attention.guidance import Guide, is_guided
from didgen.backbone.sampling import initial_noise, keep_products_in_half, sample
from didgen.runtime.precision import autocast, default_device
from didgen.settings.annotation import AnnotationSettings
from didgen.settings.guidance import LayoutGuidance

POSITIONS = [4, 6]
SCALE = 7.5
WHOLE = 50
IMAGE_SIZE = 512

EACH_STEP = LayoutGuidance(guide_every=1, reuse_prediction=False)
OURS: dict[str, LayoutGuidance] = {
    "full-pass": EACH_STEP,
    "default": LayoutGuidance(),
    "each-step": EACH_STEP,
    "to-coarse": EACH_STEP.model_copy(update={"guide_layers": "to-coarse"}),
    "down": EACH_STEP.model_copy(update={"guide_layers": "down"}),
    "every-2": EACH_STEP.model_copy(update={"guide_every": 2}),
    "down-every-2": EACH_STEP.model_copy(update={"guide_layers": "down", "guide_every": 2}),
    "reuse": LayoutGuidance(guide_every=1),
    "to-coarse-reuse": LayoutGuidance(guide_every=1, guide_layers="to-coarse"),
    "down-reuse": LayoutGuidance(guide_every=1, guide_layers="down"),
}
VARIANTS = ("plain", *OURS, "released")


@dataclass(frozen=True)
class Bench:
    """One setting of the benchmark: what is sampled, how many at once, in how many steps."""

    backbone: RandomBackbone
    steps: int
    batch: int
    precision: str

    @property
    def prompts(self) -> list[str]:
        """A prompt an image."""
        return [f"lesion {number}" for number in range(self.batch)]

    @property
    def masks(self) -> Tensor:
        """A rectangle a third of the image large, (B, 1, H, W)."""
        masks = torch.zeros(self.batch, 1, IMAGE_SIZE, IMAGE_SIZE, device=self.backbone.device)
        masks[..., 128:384, 128:320] = 1.0
        return masks

    def plain(self, clock: Clock) -> None:
        """Sample with diffusers' own pipeline."""
        pipeline = StableDiffusionPipeline(
            vae=None,
            text_encoder=None,
            tokenizer=None,
            unet=self.backbone.unet,
            scheduler=self.backbone.scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.set_progress_bar_config(disable=True)

        def tick(_: object, index: int, timestep: int, values: dict) -> dict:
            clock()
            return values

        shape = self.backbone.latent_shape
        clock.start()
        pipeline(
            prompt_embeds=self.backbone.embed(self.prompts),
            negative_prompt_embeds=self.backbone.embed([""] * self.batch),
            latents=initial_noise(range(self.batch), shape, self.backbone.device),
            num_inference_steps=self.steps,
            guidance_scale=SCALE,
            output_type="latent",
            callback_on_step_end=tick,
        )
        clock.stop()

    def ours(self, name: str, clock: Clock) -> None:
        """Guided pairs, all at once."""
        clock.start()
        unet = self.backbone.unet
        early_exit = name != "full-pass"
        guide = Guide(unet, self.masks, POSITIONS, self.steps, OURS[name], early_exit)
        latents = sample(
            self.backbone,
            self.prompts,
            range(self.batch),
            self.steps,
            SCALE,
            "ddim",
            guide,
            on_step=clock,
        )
        text = self.backbone.embed(self.prompts)
        size = self.backbone.image_size
        annotate_latents(unet, latents, 0, text, POSITIONS, size, AnnotationSettings())
        clock.stop()

    def released(self, clock: Clock) -> None:
        """Guided pairs by the released design, one after the other."""
        clock.start()
        for seed, prompt in enumerate(self.prompts):
            mask = self.masks[seed : seed + 1]
            sample_released(
                self.backbone, prompt, seed, mask, POSITIONS[0], self.steps, SCALE, on_step=clock
            )
        clock.stop()

    def runner(self, name: str) -> Callable[[Clock], None]:
        """The call of a variant."""
        if name == "plain":
            return self.plain
        if name == "released":
            return self.released
        return lambda clock: self.ours(name, clock)

    def run(self, name: str, clock: Clock) -> None:
        """One turn of a variant."""
        with autocast(self.backbone.device, self.precision):
            self.runner(name)(clock)

    def whole(self, name: str, steps: list[float], rest: float) -> float:
        """Seconds of WHOLE steps of the batch, from the least of each kind of step measured."""
        images = len(steps) // self.steps  # the released design makes them one by one
        rows = [steps[i * self.steps : (i + 1) * self.steps] for i in range(images)]
        each = [sum(column) for column in zip(*rows, strict=True)]
        settings = OURS.get(name, EACH_STEP)
        guided = [t for i, t in enumerate(each) if is_guided(settings, i, self.steps)]
        plain = [t for i, t in enumerate(each) if not is_guided(settings, i, self.steps)]
        count = sum(is_guided(settings, i, WHOLE) for i in range(WHOLE))
        return count * min(guided) + (WHOLE - count) * min(plain) + rest


def measure(bench: Bench, names: list[str], repeats: int) -> dict[str, dict[str, float]]:
    """Seconds of the whole and at WHOLE steps, and peak GB, of each variant; they take turns."""
    device = bench.backbone.device
    base = resident()
    rows: dict[str, dict[str, float]] = {}
    for name in names:  # also the warm-up
        peak = peak_over(base, lambda n=name: bench.run(n, Clock(device)), device)
        rows[name] = {"seconds": float("inf"), "whole": float("inf"), "peak": peak}
    for _ in range(repeats):
        for name in names:
            clock = Clock(device)
            bench.run(name, clock)
            row = rows[name]
            row["seconds"] = min(row["seconds"], sum(clock.steps) + clock.rest)
            row["whole"] = min(row["whole"], bench.whole(name, clock.steps, clock.rest))
    return rows


def table(rows: dict[str, dict[str, float]], steps: int) -> str:
    """Lines of variant, seconds, ratios to the first and peak."""
    base = next(iter(rows.values()))
    lines = [f"{'variant':<18}{'s':>9}{f'{steps} steps':>10}{f'{WHOLE} steps':>10}{'peak GB':>9}"]
    for name, row in rows.items():
        ratios = f"{row['seconds'] / base['seconds']:>10.2f}{row['whole'] / base['whole']:>10.2f}"
        lines.append(f"{name:<18}{row['seconds']:>9.2f}{ratios}{row['peak']:>9.2f}")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", choices=NAMES, default="tiny")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--repeats", type=int, default=2)
    given = parser.parse_args()
    if given.steps < 4:
        parser.error("--steps: at least 4, so that every variant has guided and plain steps")
    backbone = random_backbone(given.backbone, default_device())
    if given.precision == "bfloat16":
        keep_products_in_half(backbone.unet)
    weights = sum(p.numel() for p in backbone.unet.parameters())
    bench = Bench(backbone, given.steps, given.batch, given.precision)
    print(
        f"{given.backbone}: {weights:,} weights, latents {backbone.latent_shape}, batch "
        f"{given.batch}, {given.steps} steps, {given.precision}, {torch.get_num_threads()} threads"
    )
    names = ["plain", *[name for name in given.variants if name != "plain"]]
    print(table(measure(bench, names, given.repeats), given.steps))


if __name__ == "__main__":
    main()
