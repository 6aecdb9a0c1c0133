"""What recording costs: a training step and a plain pass with and without the recorder.

Run from the repository's root: python -m benchmarks.recorder [--batch 4] [--repeats 5]
Times are the best of a few turns within this one run, in processor time, so that the machine's
other work counts little; read the ratios, not the milliseconds.
"""

import argparse
import time
from collections.abc import Callable

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from didgen.attention.losses import region_attention_loss
from didgen.attention.recorder import AttentionRecorder

POSITIONS = [4, 6]


def tiny_unet() -> UNet2DConditionModel:
    """A random UNet of 48-96-128 channels with attention at 32x32 and 16x16."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=32,
        block_out_channels=(48, 96, 128),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        attention_head_dim=4,
        cross_attention_dim=64,
        norm_num_groups=8,
    )


def best_times(variants: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Least processor seconds of each variant; they take turns, so a busy time hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(repeats + 1):
        for name, call in variants.items():
            start = time.process_time()
            call()
            if turn:  # the first turn warms up
                times[name].append(time.process_time() - start)
    return {name: min(values) for name, values in times.items()}


def table(times: dict[str, float]) -> str:
    """Lines of name, milliseconds and ratio to the first."""
    base = next(iter(times.values()))
    lines = [f"{'variant':<48}{'ms':>9}{'ratio':>8}"]
    lines += [f"{name:<48}{1e3 * t:>9.1f}{t / base:>8.2f}" for name, t in times.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    unet = tiny_unet()
    latents = torch.randn(args.batch, 4, 32, 32)
    text = torch.randn(args.batch, 77, 64)
    masks = (torch.rand(args.batch, 2, 16, 16) > 0.5).float()

    def predict() -> Tensor:
        return unet(latents, 500, text).sample

    def train(attention: bool) -> None:
        unet.zero_grad()
        if not attention:
            predict().square().mean().backward()
            return
        cross = {"resolution": 16, "positions": POSITIONS}
        with AttentionRecorder(unet, cross=cross) as recorder:
            loss = predict().square().mean()
            loss = (
                loss
                + 0.1
                * region_attention_loss(
                    recorder.cross_maps(), masks, reading="minmax", normalization="mean"
                ).mean()
            )
        loss.backward()

    @torch.no_grad()
    def look(early_exit: bool) -> None:
        cross = {"resolution": 16, "positions": POSITIONS}
        with AttentionRecorder(unet, cross=cross) as recorder:
            recorder.run(latents, 500, text, early_exit=early_exit)
            recorder.cross_maps()

    steps = {
        "training step": lambda: train(False),
        "training step with the attention loss": lambda: train(True),
    }
    passes = {
        "pass without gradient": torch.no_grad()(predict),
        "the same, cross maps at 16x16 recorded": lambda: look(False),
        "the same, leaving after the last 16x16 layer": lambda: look(True),
    }
    print(f"random UNet 48-96-128, latents 32x32, batch {args.batch}, single precision\n")
    print(table(best_times(steps, args.repeats)), "\n")
    print(table(best_times(passes, args.repeats)))


if __name__ == "__main__":
    main()
