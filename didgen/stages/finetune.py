"""Fine-tune the backbone once, with the region-aware attention loss (Eq. 1, 3, 4)."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from didgen.data.settings import Section
from didgen.stages.prepare import Code

if TYPE_CHECKING:
    import torch

    from didgen.backbone.handle import Backbone
    from didgen.synthesis.didgen.cache import TrainingItem
    from didgen.synthesis.didgen.training import TrainingSettings

LOGGER = logging.getLogger(__name__)


class Settings(Section):
    """The one fine-tuning that serves both generation tasks."""

    backbone: str = Field(
        "tiny",
        description="Stable Diffusion 1.x or 2.x to start from: a diffusers folder, a hub id, or "
        "`tiny`, the small one that comes with DiDGen",
    )
    revision: str | None = Field(None, description="hub revision (commit) to pin; null: newest")
    classes: tuple[Code, ...] | None = Field(
        None, description="diagnoses to train on; null: all. Images without a label always stay"
    )
    steps: int = Field(250, ge=1, description="optimiser steps; the paper: 20000")
    batch_size: int = Field(16, ge=1, description="images a step; the paper: 4")
    learning_rate: float = Field(2e-4, gt=0, le=1e-2, description="AdamW; the paper: 1e-5")
    warmup_steps: int = Field(20, ge=0, description="steps of linear warm-up, then constant")
    weight_decay: float = Field(1e-2, ge=0, description="AdamW weight decay")
    max_grad_norm: float = Field(1.0, gt=0, description="gradient norm is clipped to this")
    alpha: float = Field(
        0.1, ge=0, description="weight of L_attn in Eq. 4; the paper: 0.1; 0 switches it off"
    )
    reading: Literal["minmax", "raw"] = Field(
        "minmax",
        description="attention maps in Eq. 3: each scaled to [0, 1], or raw as printed",
    )
    prefix_only: float = Field(
        0.2, ge=0, le=1, description="share of images trained with the prefix alone as prompt"
    )
    prompt_dropout: float = Field(
        0.1, ge=0, le=1, description="share trained with an empty prompt, for guidance-free CFG"
    )
    placeholder_init: Literal["mean", "first"] = Field(
        "mean",
        description="embedding of `<lesion>` and `<skin>`: mean of the word's pieces, or the first",
    )
    checkpoint_every: int = Field(100, ge=1, description="steps between saved states")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="arithmetic of the UNet; auto: bfloat16 where the device has it built in. "
        "Attention maps are float32 in any case",
    )

    @model_validator(mode="after")
    def _shares_leave_room(self) -> "Settings":
        if self.prefix_only + self.prompt_dropout > 1:
            raise ValueError(
                f"prefix_only + prompt_dropout: found {self.prefix_only + self.prompt_dropout:g}, "
                "expected at most 1; lower one of them"
            )
        return self


class Config(Settings):
    """Settings and paths of the stage."""

    train: Path = Field(description="manifest of the training images")
    captions: Path = Field(description="captions.csv of the caption stage")
    out: Path = Field(description="diffusers folder to write")
    state: Path = Field(description="folder for resumable state; may be deleted when done")
    seed: int = Field(0, ge=0, description="seed of data order, noise and dropout")


def run(config: Config) -> None:
    """Write the fine-tuned diffusers folder with `training.csv` and `config.json` in it.

    Raises: `BackboneError` for an unusable backbone, `ValueError` for unfit images or captions,
    `NonFiniteLoss`, `TrainingStopped`.
    """
    import pandas as pd

    from didgen.backbone.handle import Backbone
    from didgen.backbone.precision import default_device
    from didgen.data.files import atomic_directory, write_csv, write_text
    from didgen.synthesis.didgen.cache import build_cache
    from didgen.synthesis.didgen.training import finetune

    backbone = Backbone.load(config.backbone, device=default_device(), revision=config.revision)
    backbone, prefix = _with_placeholders(backbone, config)
    items = _training_items(config, backbone)
    positions = _positions(backbone, prefix, items)
    state = config.state / _state_key(config, items, backbone)
    cache = build_cache(backbone, items, (prefix, ""), state, resolution=_SIDE)
    LOGGER.info("%d images, %d of them with a mask", len(items), int(cache.has_mask.sum()))
    curve = finetune(
        backbone, cache, positions, prefix, _loop_settings(config, backbone.device), state
    )
    with atomic_directory(config.out) as folder:
        backbone.save(folder)
        write_csv(folder / "training.csv", pd.DataFrame([vars(step) for step in curve]))
        write_text(folder / "config.json", config.model_dump_json(indent=2) + "\n")


# Side of the cross-attention maps of Eq. 3.
_SIDE = 16


def _with_placeholders(backbone: "Backbone", config: Config) -> tuple["Backbone", str]:
    from didgen.attention.layers import attention_layers, select_layers
    from didgen.backbone.placeholder import add_placeholder_tokens
    from didgen.captions.prompts import PREFIX

    add_placeholder_tokens(backbone.tokenizer, backbone.text_encoder, init=config.placeholder_init)
    select_layers(attention_layers(backbone.unet, backbone.latent_size), "cross", _SIDE)
    return backbone, PREFIX


def _training_items(config: Config, backbone: "Backbone") -> list["TrainingItem"]:
    from didgen.captions.prompts import build_prompt
    from didgen.data.manifest import read_manifest, resolve
    from didgen.stages.caption import read_captions
    from didgen.synthesis.didgen.cache import TrainingItem

    frame = read_manifest(config.train)
    captions = read_captions(config.captions, frame["id"])
    if config.classes is not None:
        kept = frame["label"].isin([*config.classes, ""])
        LOGGER.info("%d of %d images left out: other classes", int((~kept).sum()), len(frame))
        frame = frame[kept]
    images, masks = resolve(config.train, frame["image"]), resolve(config.train, frame["mask"])
    return [
        TrainingItem(name, image, mask, build_prompt(captions[name], backbone.tokenizer))
        for name, image, mask in zip(frame["id"], images, masks, strict=True)
    ]


def _positions(backbone: "Backbone", prefix: str, items: list["TrainingItem"]) -> tuple[int, int]:
    """Positions of both placeholder tokens, the same in every prompt since the prefix leads it."""
    from didgen.backbone.placeholder import PLACEHOLDERS

    found = {
        tuple(backbone.token_positions(prompt, token)[0] for token in PLACEHOLDERS)
        for prompt in [prefix, *(item.prompt for item in items)]
    }
    if len(found) != 1:
        raise ValueError(
            f"placeholder tokens stand at {sorted(found)} in different prompts, expected one "
            "place; let every caption follow the prefix"
        )
    return found.pop()


def _state_key(config: Config, items: list["TrainingItem"], backbone: "Backbone") -> str:
    """What the saved state belongs to: settings and inputs, but not how often it is saved."""
    import hashlib

    import diffusers

    import didgen

    settings = config.model_dump_json(exclude={"out", "state", "checkpoint_every", "steps"})
    versions = f"{didgen.__version__}/{diffusers.__version__}"
    digest = hashlib.sha256(f"{settings}/{backbone.checksum()}/{versions}".encode())
    for item in items:
        digest.update(f"{item.id}\0{item.prompt}\0".encode())
        for file in (item.image, item.mask):
            digest.update(b"" if file is None else file.read_bytes())
    return digest.hexdigest()[:16]


def _loop_settings(config: Config, device: "torch.device") -> "TrainingSettings":
    from didgen.backbone.precision import pick_precision
    from didgen.synthesis.didgen.training import TrainingSettings

    names = TrainingSettings.__dataclass_fields__
    values = {k: v for k, v in config.model_dump().items() if k in names}
    return TrainingSettings(**{**values, "precision": pick_precision(config.precision, device)})
