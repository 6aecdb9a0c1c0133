"""How long and how fast a judge is trained: the settings both tasks share."""

from typing import Literal

from pydantic import Field

from didgen.settings.base import Precision, Tracked


class Schedule(Tracked):
    """Optimiser steps, learning rate and stopping; every arm gets the same budget."""

    steps: int = Field(
        100, ge=1, le=10_000_000, description="optimiser steps at most, equal for every arm"
    )
    batch_size: int = Field(
        16,
        ge=1,
        le=4096,
        description="images per step; the paper: 32 (classifiers), 16 (segmenters)",
    )
    learning_rate: float = Field(
        1e-3,
        gt=0,
        le=1,
        description="peak learning rate of AdamW; the paper: 1e-4 (classifiers), 3e-4 (segmenters)",
    )
    weight_decay: float = Field(1e-2, ge=0, le=10, description="weight decay of AdamW")
    warmup: float = Field(
        0.1, ge=0, lt=1, description="share of the steps over which the learning rate rises"
    )
    eval_every: int = Field(
        20, ge=1, le=10_000_000, description="steps between evaluations on validation"
    )
    patience: int = Field(
        10,
        ge=1,
        le=10_000_000,
        description="evaluations without a better one before training stops",
    )
    stop_by: Literal["metric", "loss"] = Field(
        "metric",
        description="what makes an evaluation on validation the best: the metric that decides (of "
        "equal ones the lower loss), or the loss, which says more where validation is small",
    )
    sampling: Literal["uniform", "balanced"] = Field(
        "uniform",
        description="draw images alike, or every class equally often, in all arms (the arm "
        "`oversampled` always does)",
    )
    real_images: int | None = Field(
        None,
        ge=1,
        le=10_000_000,
        description="real training images used, the same in all arms and others for every seed; "
        "null: all. The paper's S_1k: 1000",
    )
    image_size: int | None = Field(
        None,
        ge=32,
        le=4096,
        description="side in px to which images are squashed; null: as they are; the "
        "paper: 224 (classifiers), 256 (segmenters)",
    )
    memory_gb: float = Field(
        4.0,
        ge=0,
        le=100_000,
        description="GB of decoded images kept in memory; larger sets are read lazily",
    )
    precision: Precision = Field(
        "auto",
        description="arithmetic; auto: bfloat16 on a GPU that has it, else float32, in which "
        "convolutions on a processor are faster",
    )
