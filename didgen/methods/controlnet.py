"""ControlNet: images for a mask, by a trained copy of the backbone's encoder that reads the mask.

Zhang, Rao and Agrawala 2023 (ICCV), "Adding conditional control to text-to-image diffusion models",
with diffusers' network. The backbone is the run's fine-tuned one, and stays frozen. Departures:
docs/methods.md.

Shapes: B images, b of a part of a batch, C latent channels, h and w latent cells, H and W pixels.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from diffusers import ControlNetModel
from torch import Tensor

from didgen.attention.layers import CROSS_SIDE
from didgen.backbone.handle import Backbone
from didgen.backbone.prompts import PREFIX
from didgen.backbone.sampling import keep_products_in_half
from didgen.data.images import read_mask
from didgen.methods.conditioned import ConditionedSynthesizer
from didgen.methods.didgen.batches import assemble, draw
from didgen.methods.didgen.cache import TrainingCache, TrainingItem, build_cache
from didgen.methods.didgen.inputs import (
    placeholder_positions,
    state_key,
    training_items,
)
from didgen.methods.didgen.objective import reconstruction_loss
from didgen.methods.didgen.optimizer import build_optimizer
from didgen.methods.didgen.sampler import gigabytes, open_synthesizer, stacked_masks
from didgen.methods.didgen.training import NOT_FINITE, shares
from didgen.methods.protocol import Budget, Request, derive_seed
from didgen.runtime.files import (
    read_object,
    remove_leftovers,
    sha256_file,
    write_csv,
    write_json,
    write_text,
)
from didgen.runtime.locks import sole_writer
from didgen.runtime.memory import explain_no_memory
from didgen.runtime.outputs import output_folder, paths_read
from didgen.runtime.precision import autocast, default_device, pick_precision
from didgen.runtime.reproducible import deterministic_kernels, strict_kernels
from didgen.settings.controlnet import Settings
from didgen.settings.finetune import Settings as FinetuneSettings
from didgen.settings.methods import BUDGET
from didgen.settings.pairs import RivalConfig
from didgen.settings.train import Config
from didgen.training.log import Log
from didgen.training.loop import run_steps
from didgen.training.optimization import update, warm_up
from didgen.training.processes import ALONE
from didgen.training.state import Row, resume_state

LOGGER = logging.getLogger(__name__)
# In the method's folder: the network, and the backbone that it belongs to.
NETWORK, BASE = "controlnet", "backbone.json"
# Channels of the layers that read a mask, each after the first at half the side of the one before;
# of Stable Diffusion, whose latents have an eighth of the image's side, all of them.
CONDITION_CHANNELS = (16, 32, 96, 256)
NEEDS_LESS = (
    "What needs less: finetune.accumulation: 2, 4, ... (the same result in more, smaller passes), "
    "finetune.gradient_checkpointing: true, finetune.precision: bfloat16, finetune.optimizer: "
    "adamw8bit (GPU), a smaller finetune.batch_size. The last saved state is kept; with the latter "
    "three training starts anew"
)
DEPARTURES = [
    "The frozen backbone is the run's fine-tuned one, not the original Stable Diffusion.",
    "Learning rate, warm-up, batch and steps are those of the fine-tuning, for an equal budget.",
    "The share of empty prompts is prompt_dropout; the paper's is 0.5.",
    "Images are squashed to a square, where diffusers' script crops them.",
]


def build(backbone: Backbone, seed: int) -> Any:
    """An untrained ControlNet of a backbone: its encoder's weights, and what adds nothing yet.

    The layers that read the condition are drawn from the seed.
    """
    halvings = backbone.downsampling.bit_length() - 1
    channels = CONDITION_CHANNELS[: halvings + 1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("controlnet", seed))
        return ControlNetModel.from_unet(
            backbone.unet, conditioning_embedding_out_channels=channels
        )


@dataclass(frozen=True, repr=False)
class Controlled(Backbone):
    """A backbone whose UNet gets what a ControlNet makes of masks; one mask an image."""

    controlnet: Any
    masks: Tensor

    def predict(self, latents: Tensor, t: Tensor | int, embeddings: Tensor) -> Tensor:
        """The UNet's output BChw; latents may hold the images several times over, in turn.

        The condition is the mask, 0 or 1, in three channels.
        """
        condition = self.masks.expand(-1, 3, -1, -1).repeat(
            len(latents) // len(self.masks), 1, 1, 1
        )
        down, middle = self.controlnet(
            latents,
            t,
            encoder_hidden_states=embeddings,
            controlnet_cond=condition,
            return_dict=False,
        )
        return self.unet(
            latents,
            t,
            encoder_hidden_states=embeddings,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        ).sample


def control(backbone: Backbone, controlnet: Any, masks: Tensor) -> Controlled:
    """The backbone with a ControlNet that reads the masks (B, 1, H, W) in {0, 1}."""
    return Controlled(
        backbone.vae,
        backbone.text_encoder,
        backbone.tokenizer,
        backbone.unet,
        backbone.scheduler,
        controlnet,
        masks,
    )


def train(data: pd.DataFrame, config: Config) -> None:
    """Train on the images with a mask; write the network, `training.csv` and the budget.

    Of the section `finetune` it has the budget (steps, batch size, learning rate and its warm-up),
    the optimiser, flips, offset noise and precision. One process trains: where several share the
    fine-tuning's batch, it takes as many passes a step.

    Raises: `ValueError` where no image has a mask, there is no fine-tuned backbone or images are
    of another size, `NonFiniteLoss`, `OutOfMemory`, `MissingExtra`, `BrokenState`,
    `TrainingStopped`, `NoDeterministicKernel`.
    """
    masked = data[data["mask"].notna()]
    if masked.empty:
        raise ValueError(
            f"{config.train}: found no image with a mask among {len(data)}, expected some: a "
            "ControlNet learns from images and their masks; add masks, or leave the method out"
        )
    if config.backbone is None:
        raise ValueError(
            "controlnet: found no backbone, expected the fine-tuned one (`--backbone FOLDER`)"
        )
    LOGGER.info("%d of %d images have a mask", len(masked), len(data))
    given = config.finetune
    own = Settings.model_validate(config.own)
    settings = given.model_copy(
        update={
            "prefix_only": 0.0,
            "prompt_dropout": own.prompt_dropout,
            "accumulation": given.accumulation * given.processes,
        }
    )
    device = default_device()
    with (
        explain_no_memory(NEEDS_LESS),
        deterministic_kernels(device if given.deterministic else "cpu"),
    ):
        backbone = Backbone.load(str(config.backbone), device=device)
        base = backbone.checksum()
        items = training_items(masked, backbone)
        # A backbone without these tokens is not the run's fine-tuned one.
        placeholder_positions(backbone, PREFIX, items)
        state = config.state / f"controlnet-{state_key(settings, items, backbone, config.seed)}"
        with sole_writer(state):
            remove_leftovers(state)
            trained, history = fit(backbone, items, settings, config.seed, state)
    budget = Budget(
        parameters=sum(p.numel() for p in trained.parameters()),
        steps=settings.steps,
        images=settings.steps * settings.batch_size,
        departures=DEPARTURES,
    )
    with output_folder(config.out, "train", paths_read(config)) as folder:
        trained.save_pretrained(folder / NETWORK, safe_serialization=True)
        for file in (folder / NETWORK).iterdir():
            # Weights are written readable by their owner alone; a model is meant for others too.
            file.chmod(0o644)
        write_json(folder / BASE, {"checksum": base})
        write_json(folder / BUDGET, dict(budget))
        write_csv(folder / "training.csv", pd.DataFrame(history))
        write_text(folder / "config.json", config.model_dump_json(indent=2) + "\n")


def fit(
    backbone: Backbone,
    items: Sequence[TrainingItem],
    settings: FinetuneSettings,
    seed: int,
    state: Path,
) -> tuple[Any, list[Row]]:
    """The trained ControlNet and its loss curve; `state` is a folder of this training alone.

    Raises: as `train`.
    """
    precision = pick_precision(settings.precision, backbone.device)
    # What may be missing here shows before the whole set is encoded.
    log = Log("controlnet", state, every=1, report_to=settings.report_to, run=state.name)
    backbone.unet.requires_grad_(False).eval()
    controlnet = build(backbone, seed).to(backbone.device).train()
    if settings.gradient_checkpointing:
        backbone.unet.enable_gradient_checkpointing()
        controlnet.enable_gradient_checkpointing()
    optimizer = build_optimizer(list(controlnet.parameters()), settings)
    cache = build_cache(
        backbone, items, (PREFIX, ""), state, resolution=CROSS_SIDE, flips=settings.flips
    )
    parts = {"controlnet": controlnet, "optimizer": optimizer}
    history = resume_state(parts, state, settings.steps)
    run_steps(
        Step(backbone, controlnet, optimizer, cache, items, settings, seed, precision),
        parts,
        history,
        settings.steps,
        state,
        save_due=lambda done: done % settings.checkpoint_every == 0 or done == settings.steps,
        advice=NOT_FINITE,
        log=log,
    )
    return controlnet, history


@dataclass(frozen=True)
class Step:
    """A training step, with all that it needs."""

    backbone: Backbone
    controlnet: Any
    optimizer: torch.optim.Optimizer
    cache: TrainingCache
    items: Sequence[TrainingItem]
    settings: FinetuneSettings
    seed: int
    precision: str

    def __call__(self, step: int) -> Row:
        """Train on the batch of a step, counted from 0. Raises: NonFiniteLoss."""
        settings, backbone = self.settings, self.backbone
        trained = backbone.scheduler.config.num_train_timesteps
        draws = draw(self.cache, PREFIX, settings, self.seed, step, trained)
        total: Tensor | float = 0.0
        for part in shares(settings, ALONE):
            batch = assemble(backbone, self.cache, draws, part)
            controlled = control(backbone, self.controlnet, self.masks(draws.rows[part]))
            with strict_kernels():
                with autocast(backbone.device, self.precision):
                    prediction = controlled.predict(batch.noisy, batch.timesteps, batch.embeddings)
                loss = reconstruction_loss(prediction, batch.target).sum() / settings.batch_size
                loss.backward()
            total = total + loss.detach()
        return update(
            self.optimizer,
            {"loss": torch.as_tensor(total)},
            learning_rate=settings.learning_rate * warm_up(step, settings.warmup_steps),
            max_norm=settings.max_grad_norm,
        )

    def masks(self, rows: np.ndarray) -> Tensor:
        """The masks of cached rows (b, 1, H, W) in {0, 1}, mirrored where the row is."""
        masks, size = [], (self.backbone.image_size,) * 2
        for row in rows:
            mirrored, number = divmod(int(row), len(self.items))
            path = self.items[number].mask
            assert path is not None, "only images with a mask are trained on"
            mask = read_mask(path, size)
            masks.append(mask[:, ::-1] if mirrored else mask)
        return torch.from_numpy(np.stack(masks)).float()[:, None].to(self.backbone.device)


class ControlNetSynthesizer(ConditionedSynthesizer):
    """Makes an image for each mask with a ControlNet, on both passes of a step."""

    def __init__(
        self, backbone: Backbone, controlnet: Any, settings: RivalConfig, checkpoint: str
    ) -> None:
        """checkpoint: digest of both networks. The weights of both are frozen."""
        super().__init__(backbone, settings, checkpoint=checkpoint)
        self.controlnet = controlnet.requires_grad_(False).eval()
        self.memory_gb += gigabytes(controlnet)

    def sampled(self, requests: Sequence[Request]) -> Controlled:
        """The backbone, with what the ControlNet makes of these requests' masks."""
        return control(self.backbone, self.controlnet, stacked_masks(requests, self.backbone))


def load(folder: Path, config: RivalConfig, device: str) -> ControlNetSynthesizer:
    """The synthesizer of a trained ControlNet and the backbone `config.backbone`.

    Raises: `ValueError` for a folder without one, no backbone, or another one than it was trained
    on; `BackboneError`.
    """
    if config.backbone is None:
        raise ValueError(
            f"{folder}: found no backbone, expected the one that the ControlNet was trained on "
            "(`--backbone FOLDER`)"
        )
    try:
        base = read_object(folder / BASE)["checksum"]
        weights = sha256_file(folder / NETWORK / "diffusion_pytorch_model.safetensors")
        controlnet = ControlNetModel.from_pretrained(
            folder / NETWORK, use_safetensors=True, local_files_only=True
        ).to(device)
    # Each library raises its own errors for files that are gone or damaged.
    except Exception as error:
        raise ValueError(
            f"{folder}: no trained ControlNet ({str(error).splitlines()[0]}); train the method "
            "again"
        ) from error

    def make(backbone: Backbone, checksum: str) -> ControlNetSynthesizer:
        if checksum != base:
            raise ValueError(
                f"{folder}: found a ControlNet of the backbone {base[:16]}, expected one of "
                f"{config.backbone}, {checksum[:16]}; train the method again, or name the backbone "
                "that it was trained on"
            )
        digest = hashlib.sha256(f"{checksum}/{weights}".encode()).hexdigest()[:16]
        return ControlNetSynthesizer(backbone, controlnet, config, digest)

    synthesizer = open_synthesizer(config.backbone, device, make)
    if synthesizer.precision == "bfloat16":
        keep_products_in_half(controlnet)
    return synthesizer
