"""A graphics card in one command: is it right, how fast is it, what fits into it.

    python -m benchmarks.gpu [--out gpu.json] [--parts correctness finetuning pairs sampling memory]
        [--minutes 9] [--smoke]

Random weights of Stable Diffusion 2.1-base at 512 px; no network, no data. Prints a row a
measurement, then the goals, and writes both as JSON. What no time is left for, and what does not
fit, is a row without a value. `--smoke`: the tiny backbone in few steps, on a processor too, which
shows that every part runs and measures nothing.

- correctness: attention maps, a training step and a guided step in float32 against the processor,
  as relative differences (TF32 off); a resumed training and a repeated one against an undisturbed
  one, on the tiny backbone with deterministic kernels: weights that differ.
- finetuning: images/s on cached inputs and the peak of memory, by batch, arithmetic and option.
- sampling: images/s with both samplers, decoding included.
- pairs: time of guided and annotated pairs over that of the same images without, 10 of whose DDIM
  steps are measured, half of them guided.
- memory: whether a training step or a batch of pairs fits into a card of 12, 16, 24 and 40 GB, by a
  cap on the allocator, less 1 GB for CUDA's own.
"""

import argparse
import contextlib
import copy
import gc
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.finetuning_step import POSITIONS, PREFIX, made_up_cache
from benchmarks.random_weights import random_backbone
from didgen.attention.guidance import Guide
from didgen.attention.layers import CROSS_SIDE
from didgen.attention.recorder import AttentionRecorder
from didgen.backbone.handle import Backbone
from didgen.backbone.placeholder import add_placeholder_tokens
from didgen.backbone.prompts import build_prompt
from didgen.backbone.sampling import sample
from didgen.methods.didgen import training
from didgen.methods.didgen.optimizer import build_optimizer, finish_unet, prepare_unet
from didgen.methods.didgen.sampler import DidgenSynthesizer
from didgen.methods.protocol import Request
from didgen.runtime.files import write_json
from didgen.runtime.memory import OutOfMemory, explain_no_memory
from didgen.runtime.reproducible import deterministic_kernels
from didgen.settings.finetune import Settings
from didgen.settings.guidance import LayoutGuidance
from didgen.settings.pairs import Settings as PairSettings
from didgen.settings.sampling import Sampling

PARTS = ("correctness", "finetuning", "pairs", "sampling", "memory")
TOLERANCES = {"maps": 1e-3, "training step": 1e-3, "guided step": 1e-2}
CARDS_GB = (40, 24, 16, 12)
CUDA_GB = 1.0
GIGABYTE = 1024**3
SETTINGS = {
    "steps": 10**6, "learning_rate": 1e-6, "warmup_steps": 0, "prefix_only": 0.0,
    "prompt_dropout": 0.0,
}  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "": {},
    "compile": {"compile": True},
    "channels_last": {"channels_last": True},
    "adamw8bit": {"optimizer": "adamw8bit"},
    "lora_rank 16": {"lora_rank": 16},
    "gradient_checkpointing": {"gradient_checkpointing": True},
}
# What each goal is about, and its bound.
GOALS = {
    "finetuning, bfloat16, batch 16": ("images/s", "at least", 36.0),
    "20,000 steps of batch 4, bfloat16": ("minutes", "at most", 45.0),
    "2,500 guided pairs": ("minutes", "at most", 60.0),
    "guided pairs over plain images, defaults, batch 1": ("ratio", "at most", 1.25),
}


@dataclass(frozen=True)
class Row:
    """A measurement. `value` is None where `note` says why there is none."""

    part: str
    name: str
    value: float | None
    unit: str
    note: str = ""


@dataclass
class Bench:
    """The card, what runs on it, and what was measured."""

    device: torch.device
    smoke: bool
    deadline: float
    rows: list[Row] = field(default_factory=list)

    @property
    def architecture(self) -> str:
        """Which UNet."""
        return "tiny" if self.smoke else "sd21-base"

    @property
    def on_gpu(self) -> bool:
        """Whether there is a card."""
        return self.device.type == "cuda"

    def backbone(self) -> Backbone:
        """Random weights in float32, with the placeholder tokens, on the device."""
        backbone = Backbone.load("tiny") if self.smoke else random_backbone(self.architecture)
        add_placeholder_tokens(backbone.tokenizer, backbone.text_encoder)
        for module in backbone.modules():
            module.to(self.device).requires_grad_(False)
        return backbone

    def measure(self, part: str, name: str, unit: str, call: Callable[[], float]) -> float | None:
        """The value of a call, which is printed and kept; None where it has none."""
        note, value = "", None
        if time.monotonic() > self.deadline:
            note = "no time left"
        else:
            try:
                value = call()
            except OutOfMemory:
                note = "out of memory"
        self.free()
        self.keep(Row(part, name, value, unit, note))
        return value

    def keep(self, row: Row) -> None:
        """Print a row, and keep it."""
        self.rows.append(row)
        value = row.note if row.value is None else f"{row.value:.4g} {row.unit}"
        print(f"{row.part:12} {row.name:64} {value}", flush=True)

    def free(self) -> None:
        """Give back what is not used."""
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()

    def seconds(self, call: Callable[[], object], repeats: int) -> float:
        """Least seconds of a call, after one that is not counted."""
        least = float("inf")
        for turn in range(repeats + 1):
            started = self.now()
            call()
            if turn:
                least = min(least, self.now() - started)
        return least

    def now(self) -> float:
        """Seconds, with all work on the card done."""
        if self.on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter()

    def peak_gb(self) -> float:
        """Most memory since it was last asked, GB of 2^30; 0 on a processor."""
        if not self.on_gpu:
            return 0.0
        peak = torch.cuda.max_memory_allocated() / GIGABYTE
        torch.cuda.reset_peak_memory_stats()
        return peak


@contextlib.contextmanager
def training_step(
    backbone: Backbone, settings: Settings, precision: str
) -> Iterator[training.Step]:
    """A step on made-up inputs. The UNet is put back afterwards, but for its weights."""
    parameters = prepare_unet(backbone.unet, settings, seed=0)
    try:
        optimizer = build_optimizer(parameters, settings)
        cache = made_up_cache(backbone, images=max(4, settings.batch_size))
        unet = backbone.unet
        yield training.Step(
            backbone, unet, unet, optimizer, cache, POSITIONS, PREFIX, settings, 0, precision
        )
    finally:
        backbone.unet.zero_grad(set_to_none=True)
        finish_unet(backbone.unet, settings)


def requests(backbone: Backbone, count: int, masks: bool) -> list[Request]:
    """Requests for images or, with a rectangle of a seventh of the image as layout, pairs."""
    side = backbone.image_size
    mask = np.zeros((side, side), bool)
    mask[side // 4 : 3 * side // 4, side // 4 : side // 2 + side // 32] = True
    layout = mask if masks else None
    return [Request(f"{n}", "NV", "A melanocytic nevus.", n, layout) for n in range(count)]


def relative(actual: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm."""
    return float((actual - expected).norm() / expected.norm())


def correctness(bench: Bench) -> None:
    """The card against the processor, and against itself."""
    tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    ours = bench.backbone()
    theirs = copy.deepcopy(ours)
    for module in theirs.modules():
        module.to("cpu")
    compared: dict[str, Callable[[Backbone], Tensor]] = {
        "maps": attention_maps,
        "guided step": guided_latents,
        "training step": trained_losses,
    }
    for name, compute in compared.items():
        bench.measure(
            "correctness",
            f"{name}, float32, against the processor (at most {TOLERANCES[name]:g})",
            "relative difference",
            lambda compute=compute: relative(compute(ours), compute(theirs)),
        )
    torch.backends.cudnn.allow_tf32 = tf32
    for name, parts in (("repeated", [4]), ("resumed", [2, 4])):
        bench.measure(
            "correctness",
            f"{name} training of the tiny backbone, deterministic",
            "weights that differ",
            lambda parts=parts: weights_that_differ(bench.device, parts),
        )


def attention_maps(backbone: Backbone) -> Tensor:
    """Cross-attention of both tokens at a middle timestep, (1, 2, 16, 16)."""
    wanted = {"resolution": CROSS_SIDE, "positions": list(POSITIONS)}
    latents = torch.randn((1, *backbone.latent_shape), generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), AttentionRecorder(backbone.unet, cross=wanted) as recorder:
        backbone.predict(latents.to(backbone.device), 500, backbone.embed([PREFIX]))
    return recorder.cross_maps().float().cpu()


def guided_latents(backbone: Backbone) -> Tensor:
    """Latents after two guided steps of ten."""
    request = requests(backbone, 1, masks=True)[0]
    mask = torch.from_numpy(request.mask)[None, None].float().to(backbone.device)
    prompt = build_prompt(request.caption, backbone.tokenizer)
    settings = LayoutGuidance(guide_every=1, guided_fraction=1.0)
    guide = Guide(backbone.unet, mask, list(POSITIONS), 2, settings)
    return sample(backbone, [prompt], [0], 2, 7.5, "ddim", guide).float().cpu()


def trained_losses(backbone: Backbone) -> Tensor:
    """Losses and the gradient's norm of one step."""
    settings = Settings(**SETTINGS, batch_size=1)
    with training_step(backbone, settings, "float32") as step:
        row = step(0)
    return torch.tensor([row[name] for name in ("loss", "loss_rec", "loss_attn", "grad_norm")])


def weights_that_differ(device: torch.device, parts: list[int]) -> float:
    """How many weights of a training in parts differ from those of one in a single go."""
    return float(
        sum(
            int((one != other).sum())
            for one, other in zip(trained(device, parts), trained(device, [4]), strict=True)
        )
    )


def trained(device: torch.device, parts: list[int]) -> list[Tensor]:
    """The tiny UNet's weights after a training that is resumed at the ends of its parts."""
    with tempfile.TemporaryDirectory(prefix="didgen-gpu-") as name, deterministic_kernels(device):
        for steps in parts:
            backbone = Backbone.load("tiny", device=device)
            add_placeholder_tokens(backbone.tokenizer, backbone.text_encoder)
            settings = Settings(**SETTINGS | {"steps": steps, "batch_size": 2})
            cache = made_up_cache(backbone, images=4)
            training.finetune(
                backbone, cache, POSITIONS, PREFIX, settings, 0, "float32", Path(name)
            )
    return [parameter.detach().cpu() for parameter in backbone.unet.parameters()]


def finetuning(bench: Bench) -> None:
    """Speed and memory of a training step."""
    backbone = bench.backbone()
    kinds = [(precision, batch, "") for precision in ("float32", "bfloat16") for batch in (4, 16)]
    kinds += [("bfloat16", 16, option) for option in OPTIONS if option]
    if bench.smoke:
        kinds = [("float32", 2, ""), ("bfloat16", 2, "gradient_checkpointing")]
    for precision, batch, option in kinds:
        name = ", ".join(filter(None, (precision, f"batch {batch}", option)))
        settings = Settings(**SETTINGS, **OPTIONS[option], batch_size=batch)
        peak = []

        def speed(
            settings: Settings = settings, precision: str = precision, peak: list = peak
        ) -> float:
            with explain_no_memory(""), training_step(backbone, settings, precision) as step:
                step(0)
                bench.peak_gb()
                seconds = bench.seconds(lambda: step(1), 1 if bench.smoke else 5)
                peak.append(bench.peak_gb())
            return settings.batch_size / seconds

        bench.measure("finetuning", name, "images/s", speed)
        if peak and bench.on_gpu:
            bench.keep(Row("finetuning", name, peak[0], "GB at most"))


def sampling(bench: Bench) -> None:
    """Speed of images from text."""
    backbone = bench.backbone()
    for scheduler, steps in (("ddim", 50), ("dpm++", 20)):
        for batch in (1, 4, 16) if not bench.smoke else (1,):
            settings = Sampling(scheduler=scheduler, steps=2 if bench.smoke else steps, retries=0)
            bench.measure(
                "sampling",
                f"{scheduler} {steps}, batch {batch}",
                "images/s",
                lambda settings=settings, batch=batch: (
                    batch / synthesis_seconds(bench, backbone, settings, batch)
                ),
            )


def pairs(bench: Bench) -> None:
    """Guided and annotated pairs over images without guidance."""
    backbone = bench.backbone()
    steps = 2 if bench.smoke else 10
    for batch in (1, 4, 16) if not bench.smoke else (1,):
        plain = Sampling(steps=steps, retries=0)
        base = bench.measure(
            "pairs",
            f"plain, batch {batch}, {steps} steps",
            "s",
            lambda plain=plain, batch=batch: synthesis_seconds(bench, backbone, plain, batch),
        )
        for every, reuse in ((2, True), (2, False), (1, True), (1, False)):
            settings = PairSettings(
                steps=steps, retries=0, guide_every=every, reuse_prediction=reuse, last_steps=1
            )
            name = f"guide_every {every}, reuse_prediction {str(reuse).lower()}, batch {batch}"
            if base is None:
                bench.keep(Row("pairs", name, None, "ratio", "no plain images to compare with"))
                continue
            bench.measure(
                "pairs",
                name,
                "ratio",
                lambda settings=settings, batch=batch, base=base: (
                    synthesis_seconds(bench, backbone, settings, batch) / base
                ),
            )


def synthesis_seconds(bench: Bench, backbone: Backbone, settings: Sampling, batch: int) -> float:
    """Seconds of a batch in the arithmetic that `auto` takes on a GPU."""
    precision = "bfloat16" if bench.on_gpu else "float32"
    maker = DidgenSynthesizer(backbone, settings.model_copy(update={"precision": precision}))
    wanted = requests(backbone, batch, masks=isinstance(settings, PairSettings))
    with explain_no_memory(""):
        return bench.seconds(lambda: maker.synthesize(wanted), 1)


def memory(bench: Bench) -> None:
    """What fits into smaller cards."""
    if not bench.on_gpu:
        bench.keep(Row("memory", "all", None, "", "needs a GPU"))
        return
    total = torch.cuda.get_device_properties(bench.device).total_memory / GIGABYTE
    backbone = bench.backbone()
    trainings = [("float32", 4, ""), ("bfloat16", 4, ""), ("bfloat16", 4, "gradient_checkpointing"),
                 ("bfloat16", 4, "adamw8bit"), ("bfloat16", 4, "lora_rank 16"),
                 ("bfloat16", 16, "")]  # fmt: skip

    def train(precision: str, batch: int, option: str) -> float:
        settings = Settings(**SETTINGS, **OPTIONS[option], batch_size=batch)
        with explain_no_memory(""), training_step(backbone, settings, precision) as step:
            step(0)
            step(1)
        return 1.0

    def make(batch: int) -> float:
        settings = PairSettings(steps=2, retries=0, last_steps=1)
        synthesis_seconds(bench, backbone, settings, batch)
        return 1.0

    kinds: dict[str, Callable[[], float]] = {
        ", ".join(filter(None, ("finetuning", precision, f"batch {batch}", option))): (
            lambda kind=(precision, batch, option): train(*kind)
        )
        for precision, batch, option in trainings
    }
    kinds |= {f"pairs, bfloat16, batch {n}": lambda n=n: make(n) for n in (1, 4, 16)}
    try:
        for name, call in kinds.items():
            for card in (size for size in CARDS_GB if size < total):
                torch.cuda.set_per_process_memory_fraction((card - CUDA_GB) / total, bench.device)
                if bench.measure("memory", f"{name}: {card} GB", "fits", call) is None:
                    break
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, bench.device)


def goals(rows: list[Row]) -> list[dict[str, Any]]:
    """Each goal with its value, None where it was not measured."""
    values = {(row.part, row.name, row.unit): row.value for row in rows}

    def value(part: str, name: str, unit: str) -> float | None:
        return values.get((part, name, unit))

    big = value("finetuning", "bfloat16, batch 16", "images/s")
    small = value("finetuning", "bfloat16, batch 4", "images/s")
    single = value("pairs", "guide_every 2, reuse_prediction true, batch 1", "ratio")
    ratio = value("pairs", "guide_every 2, reuse_prediction true, batch 16", "ratio")
    speed = value("sampling", "ddim 50, batch 16", "images/s")
    measured = {
        "finetuning, bfloat16, batch 16": big,
        "20,000 steps of batch 4, bfloat16": small and 20_000 * 4 / small / 60,
        "2,500 guided pairs": ratio and speed and 2500 * ratio / speed / 60,
        "guided pairs over plain images, defaults, batch 1": single,
    }
    result = []
    for name, (unit, kind, bound) in GOALS.items():
        reached = measured[name]
        met = None if reached is None else (reached >= bound) == (kind == "at least")
        result.append(
            {"name": name, "value": reached, "unit": unit, "goal": f"{kind} {bound:g}", "met": met}
        )
    return result


def machine(device: torch.device) -> dict[str, Any]:
    """What was measured on."""
    known = {"device": device.type, "torch": torch.__version__, "cuda": torch.version.cuda}
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        known |= {"name": card.name, "memory_gb": round(card.total_memory / GIGABYTE, 1)}
    return known


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--smoke", action="store_true", help="tiny backbone, on a processor too")
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type != "cuda" and not given.smoke:
        parser.error("found no GPU; --smoke runs the parts at the smallest size on a processor")
    bench = Bench(device, given.smoke, time.monotonic() + 60 * given.minutes)
    started = time.monotonic()
    about = machine(device)
    print(json.dumps(about), flush=True)
    for part in given.parts:
        globals()[part](bench)
        bench.free()
    reached = [] if bench.smoke else goals(bench.rows)
    for goal in reached:
        value = "not measured" if goal["value"] is None else f"{goal['value']:.4g} {goal['unit']}"
        verdict = {None: "", True: "met", False: "NOT met"}[goal["met"]]
        print(f"goal         {goal['name']:64} {value}, {goal['goal']} {verdict}")
    write_json(
        given.out,
        {
            "machine": about,
            "architecture": bench.architecture,
            "seconds": round(time.monotonic() - started, 1),
            "rows": [asdict(row) for row in bench.rows],
            "goals": reached,
        },
    )


if __name__ == "__main__":
    main()
