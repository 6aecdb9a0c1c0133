"""What is trained and by what: the UNet or adapters of it, compiled blocks, the optimiser."""

import torch
from torch import nn

from didgen.settings import extras
from didgen.settings.finetune import Settings

LORA_LAYERS = ["to_q", "to_k", "to_v", "to_out.0"]
NEEDS_LESS = (
    "What needs less, the mildest first: finetune.accumulation: 2, 4, ... (the same result in "
    "more, smaller passes), finetune.gradient_checkpointing: true (a third slower), "
    "finetune.precision: bfloat16, finetune.optimizer: adamw8bit (GPU), finetune.lora_rank: 16 "
    "(trains adapters only), a smaller finetune.batch_size. The last saved state is kept; these "
    "change nothing of it but for lora_rank, precision, optimizer and batch_size, with which "
    "training starts anew"
)


def prepare_unet(unet: nn.Module, settings: Settings, seed: int) -> list[nn.Parameter]:
    """Make the UNet ready for training, in place; the parameters that are trained.

    Raises: MissingExtra.
    """
    unet.requires_grad_(settings.lora_rank == 0).train()
    if settings.lora_rank:
        add_lora(unet, settings.lora_rank, seed)
    if settings.channels_last:
        unet.to(memory_format=torch.channels_last)
    if settings.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    if settings.compile:
        compile_blocks(unet)
    return [p for p in unet.parameters() if p.requires_grad]


def trained_parameters(unet: nn.Module, settings: Settings) -> int:
    """How many numbers are trained: all of the UNet's, or those of its adapters."""
    if not settings.lora_rank:
        return sum(parameter.numel() for parameter in unet.parameters())
    adapted = [
        module
        for name, module in unet.named_modules()
        if isinstance(module, nn.Linear) and name.endswith(tuple(LORA_LAYERS))
    ]
    return sum(settings.lora_rank * (layer.in_features + layer.out_features) for layer in adapted)


def finish_unet(unet: nn.Module, settings: Settings) -> None:
    """Undo `prepare_unet` but for the weights: LoRA is merged into the layers it belongs to."""
    if settings.gradient_checkpointing:
        unet.disable_gradient_checkpointing()
    if settings.lora_rank:
        unet.fuse_lora()
        unet.unload_lora()
    if settings.channels_last:
        unet.to(memory_format=torch.contiguous_format)
    if settings.compile:
        for module in unet.modules():
            module._compiled_call_impl = None
    unet.requires_grad_(False).eval()


def add_lora(unet: nn.Module, rank: int, seed: int) -> None:
    """Low-rank adapters on the projections of every attention layer; all else is frozen.

    What they start from is drawn with the seed.

    Raises: MissingExtra without the package peft.
    """
    extras.require("peft", "finetune.lora_rank above 0")
    import peft

    # As many as the rank: an update's scale does not depend on it.
    config = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=LORA_LAYERS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet.add_adapter(config)


def compile_blocks(unet: nn.Module) -> None:
    """Compile the residual and feed-forward blocks, in place.

    The attention layers stay as they are: hooks read their queries and keys, and hooks that come
    and go would have a compiled UNet compiled again at every step.
    """
    for module in unet.modules():
        if type(module).__name__ in ("ResnetBlock2D", "FeedForward"):
            module.compile()


def build_optimizer(parameters: list[nn.Parameter], settings: Settings) -> torch.optim.Optimizer:
    """AdamW, fused where there is such a kernel, or with 8-bit state.

    Raises: ValueError for 8-bit state without a GPU, MissingExtra without the package bitsandbytes.
    """
    options = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    device = parameters[0].device.type
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, fused=device in ("cpu", "cuda"), **options)
    if device != "cuda":
        raise ValueError(
            f"finetune.optimizer: adamw8bit works on CUDA GPUs, and this is a {device}; use adamw"
        )
    extras.require("bitsandbytes", "finetune.optimizer: adamw8bit")
    import bitsandbytes

    return bitsandbytes.optim.AdamW8bit(parameters, **options)
