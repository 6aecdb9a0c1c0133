"""Settings of `finetune`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from didgen.settings.base import Code, Place, Precision, Seeded, Tracked

Reading = Literal["minmax", "raw", "jensen-shannon"]


class Settings(Tracked):
    """The one fine-tuning that serves both generation tasks."""

    backbone: Place = Field(
        "tiny",
        description="Stable Diffusion 1.x or 2.x to start from: a diffusers folder, a hub id, a "
        "single .safetensors checkpoint, or `tiny`, the small one that comes with DiDGen; the "
        "paper: stabilityai/stable-diffusion-2-1-base",
    )
    revision: str | None = Field(None, description="hub revision (commit) to pin; null: newest")
    offline: bool = Field(
        False, description="take a hub id from the local cache only, and never ask the network"
    )
    image_size: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="side of the images that the backbone is to work on, px: `data.size`; null: "
        "its own. Its attention needs a side of 16 cells: 256 or 512 for Stable Diffusion",
    )
    classes: tuple[Code, ...] | None = Field(
        None, description="diagnoses to train on; null: all. Images without a label always stay"
    )
    steps: int = Field(250, ge=1, le=10_000_000, description="optimiser steps; the paper: 20000")
    batch_size: int = Field(
        16, ge=1, le=16384, description="images a step, over all processes and passes; the paper: 4"
    )
    accumulation: int = Field(
        1,
        ge=1,
        le=16384,
        description="passes that a step is split into: less memory, the same result",
    )
    processes: int = Field(
        1,
        ge=1,
        le=1024,
        description="processes that share each batch: one a GPU, or on a CPU an even share of the "
        "cores each. 1 also where `accelerate launch` starts them",
    )
    sharding: Literal["none", "full"] = Field(
        "none",
        description="`full`: spread gradients and optimiser state over the processes (FSDP), for "
        "cards that cannot hold them whole; `none`: every process has all (DDP)",
    )
    learning_rate: float = Field(2e-4, gt=0, le=1e-2, description="AdamW; the paper: 1e-5")
    warmup_steps: int = Field(
        20, ge=0, le=10_000_000, description="steps of linear warm-up, then constant"
    )
    weight_decay: float = Field(1e-2, ge=0, le=10, description="AdamW weight decay")
    max_grad_norm: float = Field(1.0, gt=0, le=1e6, description="gradient norm is clipped to this")
    alpha: float = Field(
        0.1,
        ge=0,
        le=1e6,
        description="weight of L_attn in Eq. 4; the paper: 0.1; 0 switches it off",
    )
    reading: Reading = Field(
        "minmax",
        description="attention maps in Eq. 3: each scaled to [0, 1], raw as printed, or the "
        "divergence of the first public release (there with alpha 1)",
    )
    normalization: Literal["mean", "sum"] = Field(
        "mean",
        description="the sum over a map's pixels in L_attn: `mean` as released, `sum` as Eq. 3 is "
        "printed; of the readings minmax and raw",
    )
    unmasked: Literal["reconstruction", "segmented"] = Field(
        "reconstruction",
        description="an image without a mask contributes L_rec only, or also L_attn with a mask "
        "segmented by color",
    )
    prefix_only: float = Field(
        0.2, ge=0, le=1, description="share of images trained with the prefix alone as prompt"
    )
    prompt_dropout: float = Field(
        0.1,
        ge=0,
        le=1,
        description="share trained with an empty prompt, for classifier-free guidance; the "
        "paper: 0",
    )
    flips: bool = Field(
        False, description="train on mirror images too; left and right change places in captions"
    )
    snr_gamma: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="min-SNR weighting of L_rec (Hang et al. 2023: 5); null: none",
    )
    offset_noise: float = Field(
        0.0, ge=0, le=1, description="share of noise that is the same in all cells; 0: none"
    )
    ema: float = Field(
        0.0, ge=0, lt=1, description="decay of averaged weights, which are then kept; 0: none"
    )
    lora_rank: int = Field(
        0, ge=0, le=1024, description="train adapters of this rank, merged at the end; 0: all"
    )
    optimizer: Literal["adamw", "adamw8bit"] = Field(
        "adamw", description="`adamw8bit`: state in 8 bits, on a GPU, with bitsandbytes"
    )
    gradient_checkpointing: bool = Field(
        False, description="keep few activations and compute the others again: slower, smaller"
    )
    channels_last: bool = Field(False, description="memory layout that suits some GPUs better")
    compile: bool = Field(
        False, description="compile the residual and feed-forward blocks with torch.compile"
    )
    placeholder_init: Literal["mean", "first"] = Field(
        "mean",
        description="embedding of `<lesion>` and `<skin>`: mean of the word's pieces, or the first",
    )
    checkpoint_every: int = Field(
        100, ge=1, le=10_000_000, description="steps between saved states"
    )
    validate_every: int | None = Field(
        None,
        ge=1,
        le=10_000_000,
        description="steps between looks at validation images; null: half of `steps`",
    )
    validation_images: int = Field(
        8, ge=0, le=10_000, description="validation images with a mask that are looked at; 0: none"
    )
    validation_samples: int = Field(2, ge=0, le=64, description="samples drawn at each look")
    deterministic: bool = Field(
        True,
        description="on a GPU, kernels that repeat bit by bit, so that a resumed training ends as "
        "an undisturbed one; false may be faster",
    )
    precision: Precision = Field(
        "auto",
        description="arithmetic of the network; auto: bfloat16 on a GPU that has it built in, and "
        "on a processor on which a short trial finds it quicker. Attention maps are float32 in any "
        "case",
    )

    @model_validator(mode="after")
    def _shares_leave_room(self) -> "Settings":
        if self.prefix_only + self.prompt_dropout > 1:
            raise ValueError(
                f"prefix_only + prompt_dropout: found {self.prefix_only + self.prompt_dropout:g}, "
                "expected at most 1; lower one of them"
            )
        return self

    @model_validator(mode="after")
    def _a_divergence_has_no_sum(self) -> "Settings":
        if self.reading == "jensen-shannon" and self.normalization != "mean":
            raise ValueError(
                f"normalization: found {self.normalization}, which reading: jensen-shannon does "
                "not have; remove it or choose another reading"
            )
        return self

    @model_validator(mode="after")
    def _sharding_stands_alone(self) -> "Settings":
        if self.sharding == "full" and (self.lora_rank or self.compile):
            raise ValueError(
                "sharding: found full together with lora_rank or compile, which it does not go "
                "with; adapters need little memory, and sharding: none trains them"
            )
        return self

    @model_validator(mode="after")
    def _batch_can_be_shared(self) -> "Settings":
        shares = self.processes * self.accumulation
        if self.batch_size % shares:
            raise ValueError(
                f"batch_size: found {self.batch_size}, expected a multiple of processes times "
                f"accumulation, {self.processes} x {self.accumulation} = {shares}"
            )
        return self


class TrainingPaths(Seeded):
    """What the training of any method reads and writes."""

    train: Path = Field(description="manifest of the training images")
    val: Path | None = Field(
        None, description="manifest of validation images to look at during training; null: none"
    )
    captions: Path = Field(description="captions.csv of the caption stage")
    out: Path = Field(description="folder to write: the trained method")
    state: Path = Field(
        description="folder for resumable state and live logs; may be deleted when done"
    )


class Config(Settings, TrainingPaths):
    """Settings and paths of the stage."""
