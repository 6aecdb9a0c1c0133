"""What layout guidance costs: one guided sampling step against a plain one.

Run from the repository's root: python -m benchmarks.guidance [--batch 2] [--repeats 5]
A plain step is one classifier-free-guidance pass (conditional and unconditional); a guided one
adds Eq. 6 before it. Times are the best of a few turns within this one run, in processor time; read
the ratios.
"""

import argparse

import torch

from benchmarks.recorder import POSITIONS, best_times, table, tiny_unet
from didgen.attention.guidance import Guide, LayoutGuidance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    unet = tiny_unet().eval().requires_grad_(False)
    latents = torch.randn(args.batch, 4, 32, 32)
    text = torch.randn(args.batch, 77, 64)
    both = torch.cat([text, torch.randn_like(text)])
    masks = torch.zeros(args.batch, 1, 64, 64)
    masks[..., 16:48, 16:40] = 1.0

    @torch.no_grad()
    def step(settings: LayoutGuidance | None) -> None:
        z = latents
        if settings is not None:
            z = Guide(unet, masks, POSITIONS, 50, settings)(z, 500, 0, text)
        unet(torch.cat([z, z]), 500, both)

    variants = {
        "plain step": None,
        "guided, full pass": LayoutGuidance(early_exit=False),
        "guided, early exit": LayoutGuidance(),
        "guided, L_CA only, early exit at 16x16": LayoutGuidance(self_weight=0.0),
        "guided, L_SA only, early exit": LayoutGuidance(cross_weight=0.0),
    }
    times = best_times({n: (lambda s=s: step(s)) for n, s in variants.items()}, args.repeats)
    plain = times["plain step"]
    image = (times["guided, early exit"] + plain) / (2 * plain)
    print(f"random UNet 48-96-128, latents 32x32, batch {args.batch}, single precision\n")
    print(table(times))
    print(f"\nwhole image, half of its steps guided: {image:.2f} times a plain one")


if __name__ == "__main__":
    main()
