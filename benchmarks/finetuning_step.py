"""A fine-tuning step against other ways to make one: ratios within one run.

Run from the repository's root:
    python -m benchmarks.finetuning_step [--architecture tiny] [--batch 4] [--repeats 5]
        [--variants plain ours processors uncached bfloat16] [--optimizer adamw] [--memory]

`plain`: diffusers' UNet, cached inputs, mean squared error, no attention loss. `ours`: the step
that the stage `finetune` runs. `processors`: as the authors' released code does, every attention
layer runs an explicit softmax and keeps a copy of it, and the loss picks the 16x16 ones.
`uncached`: ours, with the autoencoder and the text encoder run in every step. `bfloat16`: ours in
bfloat16; the others are in single precision. Times are the least of a few turns, in processor
time, so that other work on the machine counts little. `--memory` runs each variant in a process of
its own and prints the most memory it used. Weights are random but for the tiny backbone's.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.random_weights import random_backbone
from didgen.attention.losses import region_attention_loss
from didgen.backbone.handle import Backbone
from didgen.backbone.placeholder import add_placeholder_tokens
from didgen.methods.didgen import training
from didgen.methods.didgen.cache import TrainingCache
from didgen.settings.finetune import Settings

POSITIONS, PREFIX = (4, 6), "An image of <lesion> on <skin>."
VARIANTS = ("plain", "ours", "processors", "uncached", "bfloat16")


@dataclass(frozen=True)
class Kit:
    """What all variants share: one backbone, one optimiser, one set of inputs."""

    run: training.Step
    images: Tensor
    ids: Tensor


def build_kit(architecture: str, batch: int, optimizer: str, checkpointing: bool) -> Kit:
    """A backbone ready for training, and made-up inputs of its size."""
    if architecture == "tiny":
        backbone = Backbone.load("tiny")
    else:
        name = architecture.removesuffix("-half")
        name = "sd21-base" if name == "sd21" else name
        backbone = random_backbone(name, half=architecture.endswith("-half"))
    add_placeholder_tokens(backbone.tokenizer, backbone.text_encoder)
    settings = Settings(
        steps=10**6, batch_size=batch, learning_rate=1e-6, warmup_steps=0, prefix_only=0.0,
        prompt_dropout=0.0, gradient_checkpointing=checkpointing,
    )  # fmt: skip
    parameters = training.prepare_unet(backbone.unet, settings, seed=0)
    if optimizer == "adamw":
        stepper = training.build_optimizer(parameters, settings)
    else:
        stepper = torch.optim.SGD(parameters, lr=1e-9)
    cache = made_up_cache(backbone, images=max(4, batch))
    run = training.Step(
        backbone, backbone.unet, backbone.unet, stepper, cache, POSITIONS, PREFIX, settings, 0,
        "float32",
    )  # fmt: skip
    side = backbone.image_size
    ids = backbone.tokenizer(
        [PREFIX] * batch, padding="max_length", max_length=77, return_tensors="pt"
    ).input_ids
    return Kit(run, torch.rand(batch, 3, side, side) * 2 - 1, ids)


def made_up_cache(backbone: Backbone, images: int) -> TrainingCache:
    """Random latents, embeddings and masks."""
    rng = np.random.default_rng(0)
    side, width = backbone.latent_size, backbone.unet.config.cross_attention_dim
    masks = (rng.random((images, 1, 16, 16)) > 0.5).astype(np.float32)
    return TrainingCache(
        images=images,
        moments=rng.normal(size=(images, 2, 4, side, side)).astype(np.float16),
        masks=np.concatenate([masks, 1 - masks], axis=1),
        has_mask=np.ones(images, bool),
        embeddings=rng.normal(size=(2, 77, width)).astype(np.float16),
        prompt_rows=np.zeros(images, int),
        fixed_rows={PREFIX: 0, "": 1},
    )


class Storing:
    """An attention processor with an explicit softmax of which it keeps a copy."""

    def __init__(self, store: list[Tensor]) -> None:
        self.store = store

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **_: object) -> Tensor:  # noqa: ANN001
        text = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key = attn.head_to_batch_dim(attn.to_k(text))
        value = attn.head_to_batch_dim(attn.to_v(text))
        weights = attn.get_attention_scores(query, key)
        self.store.append(weights.clone())
        return attn.to_out[0](attn.batch_to_head_dim(torch.bmm(weights, value)))


def plain(kit: Kit, attention: bool = False, store: list[Tensor] | None = None) -> None:
    """A step on cached inputs without our code; with `attention`, the loss on stored maps."""
    run = kit.run
    backbone, cache, batch = run.backbone, run.cache, run.settings.batch_size
    moments = torch.from_numpy(np.asarray(cache.moments[:batch], dtype=np.float32))
    latents = moments[:, 0] + moments[:, 1] * torch.randn_like(moments[:, 0])
    noise, t = torch.randn_like(latents), torch.randint(0, 1000, (batch,))
    text = torch.from_numpy(np.asarray(cache.embeddings[[0] * batch], dtype=np.float32))
    noisy = backbone.scheduler.add_noise(latents, noise, t)
    run.optimizer.zero_grad(set_to_none=True)
    loss = F.mse_loss(backbone.unet(noisy, t, encoder_hidden_states=text).sample, noise)
    if attention:
        maps = [w for w in store if w.shape[1:] == (256, 77)]
        mean = torch.cat([w.unflatten(0, (batch, -1)) for w in maps], dim=1).mean(1)
        chosen = mean[..., list(POSITIONS)].mT.unflatten(-1, (16, 16))
        masks = torch.from_numpy(cache.masks[:batch])
        loss = (
            loss
            + 0.1
            * region_attention_loss(chosen, masks, reading="minmax", normalization="mean").mean()
        )
    loss.backward()
    torch.nn.utils.clip_grad_norm_(run.unet.parameters(), 1.0)
    run.optimizer.step()


def processors(kit: Kit) -> None:
    """A step as the released code makes it."""
    unet, store = kit.run.backbone.unet, []
    kept = unet.attn_processors
    unet.set_attn_processor({name: Storing(store) for name in kept})
    try:
        plain(kit, attention=True, store=store)
    finally:
        unet.set_attn_processor(kept)


def ours(kit: Kit, precision: str = "float32") -> None:
    """A step of the stage `finetune`."""
    run = replace(kit.run, precision=precision)
    run(0)


def uncached(kit: Kit) -> None:
    """The same, with images and prompts encoded anew."""
    backbone = kit.run.backbone
    with torch.no_grad():
        backbone.encode_moments(kit.images)
        backbone.text_encoder(kit.ids)
    ours(kit)


STEPS: dict[str, Callable[[Kit], None]] = {
    "plain": plain,
    "ours": ours,
    "processors": processors,
    "uncached": uncached,
    "bfloat16": lambda kit: ours(kit, "bfloat16"),
}


def least_seconds(kit: Kit, names: list[str], repeats: int) -> dict[str, float]:
    """Least seconds of a step of each variant; they take turns, so a busy time hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(repeats + 1):
        for name in names:
            started = time.process_time()
            STEPS[name](kit)
            if turn:  # the first turn warms up
                times[name].append(time.process_time() - started)
    return {name: min(values) for name, values in times.items()}


def peak_gigabytes(arguments: list[str], names: list[str]) -> dict[str, float]:
    """The most memory that a process used which ran two steps of one variant."""
    peaks = {}
    for name in names:
        command = [sys.executable, "-m", "benchmarks.finetuning_step", *arguments, "--only", name]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        peaks[name] = float(printed.strip().splitlines()[-1])
    return peaks


def main() -> None:
    """Measure and print a line a variant."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    choices = ("tiny", "sd21-half", "sd21-base", "sd15-half", "sd15")
    parser.add_argument("--architecture", default="tiny", choices=choices)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--optimizer", default="adamw", choices=("adamw", "sgd"))
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--only", choices=VARIANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    given = [
        "--architecture", args.architecture, "--batch", str(args.batch),
        "--optimizer", args.optimizer, "--threads", str(args.threads),
        *(["--gradient-checkpointing"] if args.gradient_checkpointing else []),
    ]  # fmt: skip
    if args.memory:
        memory = peak_gigabytes(given, args.variants)
        for name, used in memory.items():
            print(f"{name:<12}{used:>8.2f} GB {used / memory[args.variants[0]]:>8.2f}x")
        return
    kit = build_kit(args.architecture, args.batch, args.optimizer, args.gradient_checkpointing)
    if args.only:
        for _ in range(2):
            STEPS[args.only](kit)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)
        return
    print(f"{args.architecture}, batch {args.batch}, {args.threads} threads, {args.optimizer}")
    times = least_seconds(kit, args.variants, args.repeats)
    for name, seconds in times.items():
        print(f"{name:<12}{1e3 * seconds:>10.1f} ms {seconds / times[args.variants[0]]:>8.3f}x")


if __name__ == "__main__":
    main()
