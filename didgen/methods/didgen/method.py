"""The method of the paper: one fine-tuning, images from text, and pairs from a layout."""

import contextlib
import logging
import shutil
from pathlib import Path

import pandas as pd

from didgen.attention.layers import CROSS_SIDE
from didgen.backbone.handle import Backbone
from didgen.methods.didgen import parallel
from didgen.methods.didgen.cache import build_cache
from didgen.methods.didgen.checkpoint import StepLoss
from didgen.methods.didgen.inputs import (
    add_placeholders,
    placeholder_positions,
    state_key,
    training_items,
)
from didgen.methods.didgen.sampler import DidgenSynthesizer
from didgen.methods.didgen.training import check_shares, finetune
from didgen.methods.didgen.tuning import explain_no_memory
from didgen.methods.didgen.validation import PICTURES, plan_of, prepare_validation
from didgen.methods.didgen.watching import Watch
from didgen.runtime.files import remove_leftovers, write_csv, write_text
from didgen.runtime.locks import sole_writer
from didgen.runtime.outputs import check_output, output_folder, paths_read
from didgen.runtime.precision import default_device, keep_products_in_half, pick_precision
from didgen.runtime.reproducible import deterministic_kernels
from didgen.settings.finetune import Config
from didgen.settings.sampling import Sampling

LOGGER = logging.getLogger(__name__)


def load(folder: Path, settings: Sampling, device: str) -> DidgenSynthesizer:
    """The synthesizer of a fine-tuned diffusers folder. Raises: `BackboneError`."""
    backbone = Backbone.load(str(folder), device=device)
    # Before any weight is converted: the digest is that of the folder.
    checkpoint = backbone.checksum()[:16]
    synthesizer = DidgenSynthesizer(backbone, settings, checkpoint=checkpoint)
    if synthesizer.precision == "bfloat16":
        keep_products_in_half(backbone.unet)
    return synthesizer


def train(data: pd.DataFrame, config: Config) -> None:
    """Write the fine-tuned diffusers folder with `training.csv` and `config.json` in it.

    With validation images also `validation.csv` and `validation/`, pictures of each look.

    Raises: `BackboneError` for an unusable backbone, `ValueError` for unfit images or captions,
    `NonFiniteLoss`, `OutOfMemory`, `MissingExtra`, `BrokenState`, `TrainingStopped`,
    `NoDeterministicKernel`.
    """
    check_output(config.out, "finetune", paths_read(config, config.backbone))
    if config.processes > 1 and not parallel.inside():
        parallel.take_gpus(config.processes)
        parallel.spawn(config.processes, train, data, config)
        return
    kernels = deterministic_kernels(default_device() if config.deterministic else "cpu")
    with (
        parallel.joined(config.sharding == "full") as team,
        kernels,
        sole_writer(config.state) if team.rank == 0 else contextlib.nullcontext(),
    ):
        _train(data, config, team)


def _train(data: pd.DataFrame, config: Config, team: parallel.Team) -> None:
    device = default_device()
    precision = pick_precision(config.precision, device)
    check_shares(config, team.size)
    backbone = Backbone.load(
        config.backbone,
        device=device,
        revision=config.revision,
        local_files_only=config.offline,
    )
    if config.image_size is not None:
        backbone.set_image_size(config.image_size)
    prefix = add_placeholders(backbone, config.placeholder_init)
    items = training_items(data, backbone)
    positions = placeholder_positions(backbone, prefix, items)
    state = config.state / state_key(config, items, backbone)
    validate = None
    if team.rank > 0:
        team.wait()
    else:
        remove_leftovers(state)
        # Before the whole set is encoded: unfit validation images should show now.
        plan = plan_of(config, precision, state)
        with explain_no_memory():
            validate = plan and prepare_validation(plan, backbone, prefix, positions)
    with explain_no_memory():
        cache = build_cache(
            backbone, items, (prefix, ""), state, resolution=CROSS_SIDE, flips=config.flips
        )
    watch = None
    if team.rank == 0:
        team.wait()
        masked = int(cache.has_mask[: len(items)].sum())
        LOGGER.info("%d images, %d of them with a mask", len(items), masked)
        if not masked and config.alpha:
            LOGGER.warning("no training image has a mask, so L_attn (Eq. 3) is nowhere in the loss")
        every = config.validate_every or max(1, config.steps // 2)
        watch = Watch(state, config.steps, validate, every, config.tensorboard)
    curve = finetune(
        backbone, cache, positions, prefix, config, config.seed, precision, state, team, watch
    )
    if team.rank == 0:
        _write(config, backbone, curve, watch, state)
    team.wait()


def _write(
    config: Config, backbone: Backbone, curve: list[StepLoss], watch: Watch, state: Path
) -> None:
    read = paths_read(config, config.backbone)
    with output_folder(config.out, "finetune", read) as folder:
        backbone.save(folder)
        write_csv(folder / "training.csv", pd.DataFrame([vars(step) for step in curve]))
        if watch.validations:
            write_csv(folder / "validation.csv", pd.DataFrame(watch.validations))
            (folder / PICTURES).mkdir()
        for row in watch.validations:
            name = f"{PICTURES}/step-{row['step']:07d}.png"
            shutil.copyfile(state / name, folder / name)
        write_text(folder / "config.json", config.model_dump_json(indent=2) + "\n")
