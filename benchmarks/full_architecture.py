"""Stable Diffusion 2.1-base at full size: one true training step at 512 px, and its memory.

Run from the repository's root:
    python -m benchmarks.full_architecture [--half] [--batch 1] [--steps 1]
        [--no-checkpointing] [--optimizer adamw] [--precision float32]

The UNet is built from its published configuration with random weights; its number of parameters
and the layers that Eq. 2 reads are checked. On two CPU cores a step takes minutes. Weights,
gradients and AdamW's state alone are 13.9 GB in single precision (--optimizer sgd: 6.9 GB).
"""

import argparse
import time
from dataclasses import replace

import torch

from benchmarks.finetuning_step import build_kit
from didgen.attention.layers import attention_layers, select_layers
from didgen.runtime.memory import peak_memory

PARAMETERS = 865_910_724


def main() -> None:
    """Build, check, step, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--half", action="store_true", help="half the channels and heads")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--no-checkpointing", action="store_true")
    parser.add_argument("--optimizer", default="adamw", choices=("adamw", "sgd"))
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    name = "sd21-half" if args.half else "sd21-base"
    kit = build_kit(name, args.batch, args.optimizer, not args.no_checkpointing)
    backbone = kit.run.backbone
    # Neither is needed on cached inputs.
    backbone.vae.to("meta")
    backbone.text_encoder.to("meta")
    count = sum(p.numel() for p in backbone.unet.parameters())
    layers = attention_layers(backbone.unet, backbone.latent_size)
    for kind, side in (("cross", 16), ("self", 32)):
        chosen = select_layers(layers, kind, side)
        heads = {layer.heads for layer in chosen}
        print(f"{kind}-attention {side}x{side}: {len(chosen)} layers of {heads} heads")
        if not args.half and (len(chosen), heads) != (5, {20 if kind == "cross" else 10}):
            raise SystemExit("these are not the layers of Stable Diffusion 2.1-base")
    print(f"{count:,} parameters, {backbone.image_size} px; memory so far {peak_memory():.2f} GB")
    if not args.half and count != PARAMETERS:
        raise SystemExit(f"expected {PARAMETERS:,} parameters")
    run = replace(kit.run, precision=args.precision)
    for step in range(args.steps):
        started = time.perf_counter()
        row = run(step)
        seconds = time.perf_counter() - started
        print(
            f"step {step + 1}: loss {row['loss']:.4f} (L_rec {row['loss_rec']:.4f}, L_attn "
            f"{row['loss_attn']:.4f}), {seconds:.1f} s, at most {peak_memory():.2f} GB",
            flush=True,
        )


if __name__ == "__main__":
    main()
