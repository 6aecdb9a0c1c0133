"""What each stage needs at the scale of a configuration: GPU memory, RAM, disk, hours. Estimates.

Run: python -m benchmarks.needs [--config config/isic2018.yaml] [--card a100] [--cores 8]
        [--gpu gpu.json]
Nothing is trained or sampled. Operations and activations are counted on networks of the published
shapes without weights (PyTorch's meta device); the rest is arithmetic on the configuration, on the
rates of docs/results.md and on the assumptions below. With `--gpu`, what `benchmarks.gpu` measured
on a card takes the place of what is counted: hours of fine-tuning, images and pairs, and the memory
of fine-tuning. Prints the table of docs/cluster.md.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

import didgen.backbone
from didgen.downstream.classifiers import build_classifier
from didgen.downstream.segmenters import build_segmenter
from didgen.settings.run import RunConfig

ARCHITECTURE = Path(didgen.backbone.__file__).parent / "architectures" / "sd21-base"
GB = 1e9
# Published peaks, dense, bfloat16 with sums in single precision; TFLOP/s.
CARDS = {"h100": 989.0, "a100": 312.0, "rtx4090": 165.0, "rtx3060": 25.0}
# Assumptions: shares of the peak that diffusion in diffusers, and small networks, reach.
REACHED, REACHED_SMALL = 0.30, 0.10
# docs/results.md: images/s a core, decoded and resized, and with fingerprints.
DECODED, FINGERPRINTED = 114.0, 53.0
DOWNLOAD_MB_S = 20.0  # assumption
CONTEXT_GB = 1.0  # assumption: CUDA's own, and the allocator's loss
ISIC_TRAINING, ISIC_ALL = 10015 + 2594, 10015 + 193 + 1512 + 2594 + 100 + 1000
ARCHIVES_GB = 16.0  # README.md
PNG_BYTES = 1.6  # a photograph in PNG; bytes a pixel, of 3


@dataclass(frozen=True)
class Need:
    """One stage: memory of GPU and host in GB, disk in GB, hours on one card or machine."""

    stage: str
    gpu_gb: float | None
    ram_gb: float
    disk_gb: float
    hours: float
    how: str


@dataclass(frozen=True)
class Model:
    """Sizes of Stable Diffusion at a resolution: weights, and what a pass takes for one image."""

    unet: float
    frozen: float
    pass_flops: float
    decode_flops: float
    activation_bytes: float


def counted(call: Callable[[], object]) -> float:
    """Floating-point operations of a call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())


def kept_bytes(call: Callable[[], object], weights: set[int]) -> float:
    """Bytes that autograd keeps for a backward pass, without weights and attention scores.

    Score matrices (equal last sizes of 1024 and more) are left out: fused kernels keep none.
    """
    kept: dict[int, int] = {}
    held = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        scores = tensor.ndim >= 3 and tensor.shape[-1] == tensor.shape[-2] >= 1024
        if storage._cdata not in weights and not scores:
            held.append(tensor)  # else its storage's number would be given to another
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        call()
    return float(sum(kept.values()))


def measure_model(size: int) -> Model:
    """Count Stable Diffusion 2.1-base for one image of `size` px."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    def config(part: str) -> dict:
        return json.loads((ARCHITECTURE / part / "config.json").read_text())

    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config("unet"))
        vae = AutoencoderKL.from_config(config("vae"))
        text = CLIPTextModel(CLIPTextConfig(**config("text_encoder")))
        latents = torch.empty(1, 4, size // 8, size // 8)
        words = torch.empty(1, 77, unet.config.cross_attention_dim)
        moment = torch.empty(1)
    weights = {p.untyped_storage()._cdata for p in unet.parameters()}
    frozen = sum(p.numel() for model in (vae, text) for p in model.parameters())
    with torch.no_grad():
        passing = counted(lambda: unet(latents, moment, words))
        decoding = counted(lambda: vae.decode(latents))
    return Model(
        unet=float(sum(p.numel() for p in unet.parameters())),
        frozen=float(frozen),
        pass_flops=passing,
        decode_flops=decoding,
        activation_bytes=kept_bytes(lambda: unet(latents, moment, words), weights),
    )


def measure_network(config: RunConfig, stage: str, size: int) -> tuple[float, float]:
    """The network of `classify` or `segment`, for one image of `size` px, without its weights.

    Returns operations of a pass and bytes kept for its backward pass.
    """
    part = getattr(config, stage)
    with torch.device("meta"):
        if stage == "classify":
            built = build_classifier(
                part.model, len(config.data.classes), size, False, weights=None
            )
        else:
            built = build_segmenter(
                part.encoder, size, part.decoder_channels, False, model=part.model, weights=None
            )
        # Two: normalization over a batch wants more than one.
        images = torch.empty(2, 3, size, size)
    network = built.model
    weights = {p.untyped_storage()._cdata for p in network.parameters()}
    kept = kept_bytes(lambda: network.train()(images), weights)
    network.eval().requires_grad_(False)
    return counted(lambda: network(images)) / 2, kept / 2


def training_gb(config: RunConfig, model: Model) -> float:
    """GPU memory of fine-tuning all weights with AdamW in single precision, GB.

    16 bytes a weight (itself, gradient, two moments) and the activations of one pass; frozen parts
    are not needed on cached latents and prompts. bfloat16 keeps some activations in half: less.
    """
    tuned = config.finetune
    images = tuned.batch_size / tuned.accumulation / tuned.processes
    activations = model.activation_bytes * images
    if tuned.gradient_checkpointing:
        activations /= 4  # assumption: the inputs of blocks, and one block at a time
    return (16 * model.unet + activations) / GB + CONTEXT_GB


def generation(config: RunConfig, model: Model, flops_s: float) -> list[Need]:
    """Fine-tuning, images and pairs."""
    tuned, images, pairs = config.finetune, config.images, config.pairs
    weights = 4 * (model.unet + model.frozen) / GB
    passes = 4 if tuned.gradient_checkpointing else 3
    steps = tuned.steps * tuned.batch_size * passes * model.pass_flops
    sampling_gb = weights + CONTEXT_GB
    count = len(images.classes or config.data.classes) * images.per_class
    one = images.steps * 2 * model.pass_flops + model.decode_flops
    # A guided step adds a pass and its backward to the latents, which costs as much again.
    equivalents = 2 + 2 * pairs.guided_fraction
    pair = pairs.steps * equivalents * model.pass_flops + model.decode_flops
    png = PNG_BYTES * config.data.size**2 / GB
    peak = model.activation_bytes * pairs.batch_size / GB
    reached = flops_s * REACHED
    return [
        Need("finetune", training_gb(config, model), 2 * weights, weights + 12 * model.unet / GB,
             steps / reached / 3600, f"{passes} passes a step and image"),
        Need("images", sampling_gb + 0.5 * images.batch_size, 2 * weights, count * png,
             count * one / reached / 3600, f"{count} images, {images.steps} steps of 2 passes"),
        Need("pairs", sampling_gb + peak, 2 * weights, pairs.count * png,
             pairs.count * pair / reached / 3600,
             f"{pairs.count} pairs, {pairs.steps} steps of {equivalents:g} passes"),
    ]  # fmt: skip


def measured(needs: list[Need], config: RunConfig, rows: list[Mapping[str, Any]]) -> list[Need]:
    """The needs with what `rows` of `benchmarks.gpu` measured in place of what was counted.

    Rows are of 512 px. Of the batches that were measured the largest that is no larger than what
    the configuration computes at once counts, or else the smallest. A stage without such a row
    stays as it was counted.
    """
    values = {(row["part"], row["name"], row["unit"]): row["value"] for row in rows}

    def nearest(part: str, name: str, unit: str, batch: int) -> tuple[int, float] | None:
        """The batch, and the value of the row `name` with it in place of `{}`."""
        there = {n: value for n in (1, 4, 16)
                 if (value := values.get((part, name.format(n), unit))) is not None}  # fmt: skip
        if not there:
            return None
        chosen = max((n for n in there if n <= batch), default=min(there))
        return chosen, there[chosen]

    tuned, images, pairs = config.finetune, config.images, config.pairs
    if config.data.size != 512:
        return needs
    options = {
        "compile": tuned.compile,
        "channels_last": tuned.channels_last,
        "adamw8bit": tuned.optimizer == "adamw8bit",
        f"lora_rank {tuned.lora_rank}": tuned.lora_rank,
        "gradient_checkpointing": tuned.gradient_checkpointing,
    }
    precision = "float32" if tuned.precision == "float32" else "bfloat16"
    training = ", ".join([precision, "batch {}", *(name for name, on in options.items() if on)])
    at_once = max(1, tuned.batch_size // tuned.accumulation // tuned.processes)
    speeds = {
        "finetune": nearest("finetuning", training, "images/s", at_once),
        "images": _sampled(images.scheduler, images.steps, images.batch_size, nearest),
        "pairs": _sampled(pairs.scheduler, pairs.steps, pairs.batch_size, nearest),
    }
    reuse = str(pairs.reuse_prediction).lower()
    guided = f"guide_every {pairs.guide_every}, reuse_prediction {reuse}, batch {{}}"
    ratio = nearest("pairs", guided, "ratio", pairs.batch_size)
    count = len(images.classes or config.data.classes) * images.per_class
    seconds = {
        stage: made / speed[1]
        for stage, made in (
            ("finetune", tuned.steps * tuned.batch_size), ("images", count), ("pairs", pairs.count),
        )
        if (speed := speeds[stage]) is not None
    }  # fmt: skip
    # The ratio was measured with half of the steps guided.
    if ratio is None:
        seconds.pop("pairs", None)
    elif "pairs" in seconds:
        seconds["pairs"] *= 1 + (ratio[1] - 1) * pairs.guided_fraction / 0.5
    peak = nearest("finetuning", training, "GB at most", at_once)
    result = []
    for need in needs:
        if need.stage in seconds:
            batch = speeds[need.stage][0]
            how = f"measured, batch {batch}"
            hours = seconds[need.stage] * config.generator_seeds / 3600
            need = replace(need, hours=hours, how=how)
        if need.stage == "finetune" and peak is not None:
            # It was measured in GB of 2^30 bytes.
            need = replace(need, gpu_gb=peak[1] * 2**30 / GB + CONTEXT_GB)
        result.append(need)
    return result


def _sampled(
    scheduler: str, steps: int, batch: int, nearest: Callable[..., tuple[int, float] | None]
) -> tuple[int, float] | None:
    """Batch and images/s of a sampler, in proportion to the steps of which it was measured."""
    known = {"ddim": 50, "dpm++": 20}.get(scheduler)
    if known is None:
        return None
    speed = nearest("sampling", f"{scheduler} {known}, batch {{}}", "images/s", batch)
    return speed and (speed[0], speed[1] * known / steps)


def downstream(config: RunConfig, flops_s: float, cores: int, arms: int) -> list[Need]:
    """One training of each task, and all of them: to its last step, without early stop."""
    needs = []
    for stage, part in (("classify", config.classify), ("segment", config.segment)):
        size = part.image_size or config.data.size
        flops, kept = measure_network(config, stage, size)
        images = part.steps * part.batch_size
        hours = max(images * 3 * flops / (flops_s * REACHED_SMALL), images / DECODED / cores) / 3600
        gpu = CONTEXT_GB + part.batch_size * kept / GB
        jobs = arms * len(config.seeds)
        note = f"{part.model}, one of {jobs} jobs; all: {jobs * hours:.1f} h"
        needs.append(Need(stage, gpu, 4 + part.memory_gb, 0.1, hours, note))
        if stage == "classify":
            folds = config.label_fidelity.folds
            note = f"{folds} trainings as of classify, one job"
            needs.append(Need("label_judges", gpu, 4 + part.memory_gb, 0.1, folds * hours, note))
    return needs


def data(config: RunConfig, cores: int) -> list[Need]:
    """Fetching and preparing ISIC 2018."""
    count = ISIC_ALL if config.data.splits == "official" else ISIC_TRAINING
    fetched = ARCHIVES_GB * 1000 / DOWNLOAD_MB_S / 3600
    prepared = count / FINGERPRINTED / cores / 3600
    disk = count * PNG_BYTES * config.data.size**2 / GB
    return [
        Need("fetch", None, 1, ARCHIVES_GB, fetched, f"at {DOWNLOAD_MB_S:.0f} MB/s"),
        Need("data", None, 2, disk, prepared, f"{count} images, {cores} cores"),
    ]


def table(needs: list[Need]) -> str:
    """The rows as Markdown."""
    lines = ["| stage | GPU memory, GB | RAM, GB | disk, GB | hours | counted from |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for need in needs:
        gpu = "" if need.gpu_gb is None else f"{need.gpu_gb:.0f}"
        lines.append(
            f"| {need.stage} | {gpu} | {need.ram_gb:.0f} | {need.disk_gb:.1f} | {need.hours:.1f} | "
            f"{need.how} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=Path("config/isic2018.yaml"))
    parser.add_argument("--card", default="a100", choices=tuple(CARDS))
    parser.add_argument("--cores", type=int, default=8)
    parser.add_argument("--arms", type=int, default=2)
    parser.add_argument("--gpu", type=Path, help="what benchmarks.gpu wrote")
    given = parser.parse_args()
    config = RunConfig.model_validate(yaml.safe_load(given.config.read_text()))
    model = measure_model(config.data.size)
    peak = CARDS[given.card] * 1e12
    print(f"UNet: {model.unet / 1e6:.0f} million weights, {model.pass_flops / 1e12:.2f} TFLOP a")
    print(f"pass and image, {model.activation_bytes / GB:.2f} GB kept for its backward pass")
    needs = data(config, given.cores) + generation(config, model, peak)
    needs += downstream(config, peak, given.cores, given.arms)
    card = given.card
    if given.gpu is not None:
        known = json.loads(given.gpu.read_text())
        needs, card = measured(needs, config, known["rows"]), known["machine"].get("name", "card")
    print(f"Estimates for one {card}:\n\n{table(needs)}")


if __name__ == "__main__":
    main()
