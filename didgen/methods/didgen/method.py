"""The method of the paper: one fine-tuning, images from text, and pairs from a layout."""

import contextlib
import logging
import shutil
from pathlib import Path

import pandas as pd

from didgen.attention.layers import CROSS_SIDE
from didgen.backbone.handle import Backbone
from didgen.backbone.sampling import keep_products_in_half
from didgen.methods.didgen.cache import build_cache
from didgen.methods.didgen.inputs import (
    add_placeholders,
    placeholder_positions,
    state_key,
    training_items,
)
from didgen.methods.didgen.optimizer import NEEDS_LESS
from didgen.methods.didgen.sampler import DidgenSynthesizer
from didgen.methods.didgen.training import check_shares, finetune
from didgen.methods.didgen.validation import PICTURES, Validation, plan_of, prepare_validation
from didgen.runtime.files import remove_leftovers, write_csv, write_text
from didgen.runtime.locks import sole_writer
from didgen.runtime.memory import explain_no_memory
from didgen.runtime.outputs import check_output, output_folder, paths_read
from didgen.runtime.precision import default_device, pick_precision
from didgen.runtime.reproducible import deterministic_kernels
from didgen.settings.finetune import Config
from didgen.settings.sampling import Sampling
from didgen.training import processes
from didgen.training.log import Log
from didgen.training.state import Row

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
    if config.processes > 1 and not processes.inside():
        processes.take_gpus(config.processes, "finetune.processes")
        processes.spawn("finetune", config.processes, train, data, config)
        return
    kernels = deterministic_kernels(default_device() if config.deterministic else "cpu")
    with (
        processes.joined(config.sharding == "full") as team,
        kernels,
        sole_writer(config.state) if team.rank == 0 else contextlib.nullcontext(),
    ):
        _train(data, config, team)


def _train(data: pd.DataFrame, config: Config, team: processes.Team) -> None:
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
    log = validation = None
    if team.rank > 0:
        team.wait()
    else:
        remove_leftovers(state)
        # Before the whole set is encoded: unfit validation images should show now.
        plan = plan_of(config, precision, state)
        run_name = f"finetune-{state.name}"
        log = Log("training", state, every=1, report_to=config.report_to, run=run_name)
        with explain_no_memory(NEEDS_LESS):
            measure = plan and prepare_validation(plan, backbone, prefix, positions)
        if measure:
            every = config.validate_every or max(1, config.steps // 2)
            validation = Validation(measure, state, config.steps, every, log)
    with explain_no_memory(NEEDS_LESS):
        cache = build_cache(
            backbone, items, (prefix, ""), state, resolution=CROSS_SIDE, flips=config.flips
        )
    if team.rank == 0:
        team.wait()
        masked = int(cache.has_mask[: len(items)].sum())
        LOGGER.info("%d images, %d of them with a mask", len(items), masked)
        if not masked and config.alpha:
            LOGGER.warning("no training image has a mask, so L_attn (Eq. 3) is nowhere in the loss")
    history = finetune(
        backbone, cache, positions, prefix, config, config.seed, precision, state, team, log,
        validation,
    )  # fmt: skip
    if team.rank == 0:
        _write(config, backbone, history, validation.rows if validation else [], state)
    team.wait()


def _write(
    config: Config, backbone: Backbone, history: list[Row], validations: list[Row], state: Path
) -> None:
    read = paths_read(config, config.backbone)
    with output_folder(config.out, "finetune", read) as folder:
        backbone.save(folder)
        write_csv(folder / "training.csv", pd.DataFrame(history))
        if validations:
            write_csv(folder / "validation.csv", pd.DataFrame(validations))
            (folder / PICTURES).mkdir()
        for row in validations:
            name = f"{PICTURES}/step-{row['step']:07d}.png"
            shutil.copyfile(state / name, folder / name)
        write_text(folder / "config.json", config.model_dump_json(indent=2) + "\n")
