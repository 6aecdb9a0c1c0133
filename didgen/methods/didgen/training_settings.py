"""The knobs of the fine-tuning loop, and the record of one of its steps."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingSettings:
    """The knobs of the loop; `didgen.stages.finetune` documents each with its unit."""

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    max_grad_norm: float
    alpha: float
    reading: str
    prefix_only: float
    prompt_dropout: float
    checkpoint_every: int
    precision: str
    seed: int
    resolution: int = 16
    accumulation: int = 1
    gradient_checkpointing: bool = False
    optimizer: str = "adamw"
    ema: float = 0.0
    snr_gamma: float | None = None
    offset_noise: float = 0.0
    flips: bool = False
    lora_rank: int = 0
    channels_last: bool = False
    compile: bool = False


@dataclass(frozen=True)
class StepLoss:
    """The losses of one step (Eq. 4 and its two parts) and the gradient's norm."""

    step: int
    loss: float
    loss_rec: float
    loss_attn: float
    lr: float
    grad_norm: float
    seconds: float
