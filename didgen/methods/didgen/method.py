"""The method of the paper: one fine-tuning, images from text, and pairs from a layout."""

import contextlib
import logging
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from pydantic import BaseModel

from didgen.attention.layers import CROSS_SIDE
from didgen.backbone.handle import Backbone
from didgen.backbone.sampling import sample
from didgen.methods.didgen.cache import PriorRows, TrainingItem, build_cache
from didgen.methods.didgen.inputs import (
    add_placeholders,
    placeholder_positions,
    state_key,
    training_items,
)
from didgen.methods.didgen.optimizer import NEEDS_LESS, trained_parameters
from didgen.methods.didgen.sampler import DidgenSynthesizer, open_synthesizer, to_pixels
from didgen.methods.didgen.training import check_shares, finetune
from didgen.methods.didgen.validation import PICTURES, Validation, plan_of, prepare_validation
from didgen.methods.protocol import Budget, derive_seed
from didgen.runtime.files import remove_leftovers, write_csv, write_json, write_png, write_text
from didgen.runtime.locks import sole_writer
from didgen.runtime.memory import explain_no_memory
from didgen.runtime.outputs import check_output, output_folder, paths_read
from didgen.runtime.precision import autocast, default_device, pick_precision
from didgen.runtime.progress import track
from didgen.runtime.reproducible import deterministic_kernels
from didgen.settings.finetune import Config
from didgen.settings.methods import BUDGET
from didgen.settings.sampling import Sampling
from didgen.training import processes
from didgen.training.log import Log
from didgen.training.state import Row

LOGGER = logging.getLogger(__name__)
# Images for prior preservation are sampled so many at once, as diffusers' script does it.
PRIOR_BATCH, PRIOR_GUIDANCE = 4, 7.5


def load(folder: Path, settings: Sampling, device: str) -> DidgenSynthesizer:
    """The synthesizer of a fine-tuned diffusers folder. Raises: `BackboneError`."""
    return open_synthesizer(
        folder,
        device,
        lambda backbone, digest: DidgenSynthesizer(backbone, settings, checkpoint=digest),
    )


@dataclass(frozen=True)
class Prior:
    """Prior preservation: images that the untouched backbone makes of a prompt, in as many steps,
    and the weight of their loss beside that of the training images.
    """

    prompt: str
    images: int
    steps: int
    weight: float


@dataclass(frozen=True)
class Variant:
    """A training that is another method's: the stage that writes its folder, prior preservation if
    it has that, and what departs from the method's source, in sentences.

    record: the settings to write beside the weights, where they are not the fine-tuning's.
    """

    stage: str
    prior: Prior | None
    departures: tuple[str, ...]
    record: BaseModel | None = None


OWN = Variant("finetune", None, ())


def train(data: pd.DataFrame, config: Config, variant: Variant = OWN) -> None:
    """Write the fine-tuned diffusers folder with `training.csv` and `config.json` in it.

    With validation images also `validation.csv` and `validation/`, pictures of each look.

    Raises: `BackboneError` for an unusable backbone, `ValueError` for unfit images or captions,
    `NonFiniteLoss`, `OutOfMemory`, `MissingExtra`, `BrokenState`, `TrainingStopped`,
    `NoDeterministicKernel`.
    """
    check_output(config.out, variant.stage, paths_read(config, config.backbone))
    if variant.prior and config.batch_size % 2:
        raise ValueError(
            f"finetune.batch_size: found {config.batch_size}, expected an even number: half of "
            "each batch are images for prior preservation"
        )
    if config.processes > 1 and not processes.inside():
        processes.take_gpus(config.processes, "finetune.processes")
        processes.spawn("finetune", config.processes, train, data, config, variant)
        return
    kernels = deterministic_kernels(default_device() if config.deterministic else "cpu")
    with (
        processes.joined(config.sharding == "full") as team,
        kernels,
        sole_writer(config.state) if team.rank == 0 else contextlib.nullcontext(),
    ):
        _train(data, config, team, variant)


def _train(data: pd.DataFrame, config: Config, team: processes.Team, variant: Variant) -> None:
    prior = variant.prior
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
    state = config.state / state_key(config, items, backbone, *([prior] if prior else []))
    log = validation = None
    if team.rank > 0:
        team.wait()
        made = prior_items(prior, backbone, config, state) if prior else []
    else:
        remove_leftovers(state)
        made = prior_items(prior, backbone, config, state) if prior else []
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
            backbone, items + made, (prefix, ""), state, resolution=CROSS_SIDE, flips=config.flips
        )
    if prior:
        cache = replace(cache, prior=PriorRows(len(made), prior.weight))
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
        _write(config, variant, backbone, history, validation.rows if validation else [], state)
    team.wait()


def prior_items(
    prior: Prior, backbone: Backbone, config: Config, state: Path
) -> list[TrainingItem]:
    """The images for prior preservation, made with the backbone as it is; those there are kept."""
    folder, precision = state / "prior", pick_precision(config.precision, backbone.device)
    items = [
        TrainingItem(f"prior_{number}", folder / f"{number}.png", None, prior.prompt)
        for number in range(prior.images)
    ]
    for first in track(range(0, len(items), PRIOR_BATCH), label="images for prior preservation"):
        batch = items[first : first + PRIOR_BATCH]
        if all(item.image.is_file() for item in batch):
            continue
        # All batches are full: kernels are chosen by shape, and bytes should not depend on it.
        seeds = [derive_seed(config.seed, "prior", first + k) for k in range(PRIOR_BATCH)]
        with autocast(backbone.device, precision), explain_no_memory(NEEDS_LESS):
            latents = sample(
                backbone,
                [prior.prompt] * PRIOR_BATCH,
                seeds,
                steps=prior.steps,
                guidance_scale=PRIOR_GUIDANCE,
                scheduler="ddim",
            )
            pixels = to_pixels(backbone.decode(latents))
        for item, image in zip(batch, pixels, strict=False):
            write_png(item.image, image)
    return items


def _write(
    config: Config, variant: Variant, backbone: Backbone, history: list[Row],
    validations: list[Row], state: Path,
) -> None:  # fmt: skip
    read = paths_read(config, config.backbone)
    budget: Budget = {
        "parameters": trained_parameters(backbone.unet, config),
        "steps": len(history),
        "images": len(history) * config.batch_size,
        "departures": list(variant.departures),
    }
    with output_folder(config.out, variant.stage, read) as folder:
        backbone.save(folder)
        write_json(folder / BUDGET, dict(budget))
        write_csv(folder / "training.csv", pd.DataFrame(history))
        if validations:
            write_csv(folder / "validation.csv", pd.DataFrame(validations))
            (folder / PICTURES).mkdir()
        for row in validations:
            name = f"{PICTURES}/step-{row['step']:07d}.png"
            shutil.copyfile(state / name, folder / name)
        record = variant.record or config
        write_text(folder / "config.json", record.model_dump_json(indent=2) + "\n")
