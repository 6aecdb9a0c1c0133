"""What training a classifier and training a segmenter share: an arm's tables in, results out."""

import dataclasses
import hashlib
import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model

import didgen
from didgen.downstream.arms import compose, proportionate
from didgen.downstream.classifiers import Built
from didgen.downstream.datasets import (
    ImageSet,
    build_unlabelled,
    check_apart,
    rows_without,
    usable_rows,
)
from didgen.downstream.training import EVALUATION_BATCH, Outcome, arithmetic, predict
from didgen.runtime.files import (
    atomic_path,
    remove_leftovers,
    sha256_file,
    write_csv,
    write_json,
)
from didgen.runtime.outputs import check_output, output_folder, paths_read
from didgen.runtime.precision import default_device
from didgen.settings.arms import SYNTHETIC_ONLY, ArmError, parse_arm
from didgen.settings.classify import Config as ClassifyConfig
from didgen.settings.label_judges import Config as LabelJudgesConfig
from didgen.settings.segment import Config as SegmentConfig
from didgen.training.log import Log
from didgen.training.state import remove_states

LOGGER = logging.getLogger(__name__)


# What a saved state does not depend on: it may be continued with other values of these.
FREE = ("out", "state", "train", "val", "test", "synthetic", "memory_gb", "report_to")
# Beside these, what arms may differ in; everything else the verdict asks to be the same.
OF_ARM = (*FREE, "arm", "seed")
# A judge of label fidelity that is trained, in the state of its training.
JUDGE = "judge.safetensors"
# Of arm `pseudo`: the first network once it is trained, in the state of its training.
FIRST = "first.safetensors"
ArmConfig = ClassifyConfig | SegmentConfig


def train_arm(
    config: ArmConfig,
    stage: Literal["classify", "segment"],
    need: Literal["label", "mask"],
    train: Callable[[Any, Path, Path | None, dict[str, pd.DataFrame], dict[str, Any]], None],
    label: Callable[
        [Any, Path, Path | None, dict[str, pd.DataFrame], Path], tuple[pd.DataFrame, dict[str, Any]]
    ],
) -> None:
    """Let `train` write the results of an arm: from config, folder, state, tables and counts.

    `label` trains the first network of arm `pseudo`, from config, folder, state, tables and a
    folder for masks. It gives the table "unlabelled" with what that network says, and counts of it.
    Each of the two trainings has a state of its own.
    Raises: as `check_output`, `load_arm`, `train` and `label`.
    """
    read = paths_read(config, config.weights)
    check_output(config.out, stage, read)
    frames, counts = load_arm(config, need)
    learnt = {name: frame for name, frame in frames.items() if name not in ("real", "test")}
    states = [state_folder(config, learnt, config.weights)]
    key = states[0].name if states[0] else None
    # A tracker's files are continued where the training is.
    with (
        tempfile.TemporaryDirectory(prefix="didgen-") as made,
        output_folder(config.out, stage, read, key=key) as out,
    ):
        if "unlabelled" in frames:
            labelled, told = label(config, out, states[0], frames, Path(made))
            frames["train"] = pd.concat([frames["real"], labelled], ignore_index=True)
            if labelled.empty:
                raise ArmError(
                    f"arm {config.arm!r}: the first network sees a lesion in none of "
                    f"{len(frames['unlabelled'])} images without a mask, expected masks to learn "
                    "from; train for more steps, or leave the arm out"
                )
            counts |= told | {"n_pseudo": len(labelled), "n_train": len(frames["train"])}
            learnt = {"train": frames["train"], "val": frames["val"]}
            states.append(state_folder(config, learnt, config.weights))
        train(config, out, states[-1], frames, counts)
    for state in states:
        finish_state(state)


def load_arm(
    config: ArmConfig, need: Literal["label", "mask"]
) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """The tables of an arm ("train", "val", "test", and "real": train without what the arm adds).

    Of arm `pseudo` also "unlabelled": the training images that lack what the task needs.
    Also returns how many images each has and how many lack what the task needs.
    Raises: ValueError for leaks between them, or an arm whose images are not there.
    """
    arm = parse_arm(config.arm)
    paths = {"real": config.train, "val": config.val, "test": config.test}
    if arm.needs_synthetic and config.synthetic is not None:
        paths["synthetic"] = config.synthetic
    frames, without = {}, {}
    for name, path in paths.items():
        frames[name], without[name] = usable_rows(path, need)
    made = frames.pop("synthetic", None)
    if made is not None:
        # What a set says of its files may be wrong; a copy of a test image is to be seen.
        made = made.assign(sha256=[sha256_file(path) for path in made["image"]])
    unlabelled = frames["real"].iloc[:0]
    if arm.kind == "pseudo":
        unlabelled = rows_without(config.train, need)
        if unlabelled.empty:
            raise ArmError(
                f"arm {config.arm!r}: found a {need} for each of {len(frames['real'])} images in "
                f"{config.train}, expected some without, which a first network labels; leave the "
                "arm out, or take `pseudo_labels` or `pseudo_masks` for the task that has such "
                "images"
            )
    check_apart(
        pd.concat([frames["real"], unlabelled]),
        {"val": frames["val"], "test": frames["test"]},
        None if arm.set_name is None else made,
    )
    n_real = len(frames["real"])
    frames["real"] = _limited(frames["real"], config, need)
    added = compose(arm, frames["real"], made, need == "label", config.seed)
    real = frames["real"].iloc[:0] if arm.kind == SYNTHETIC_ONLY else frames["real"]
    frames["train"] = pd.concat([real, added], ignore_index=True).fillna(
        {"patient_id": "", "lesion_id": ""}
    )
    if len(unlabelled):
        frames["unlabelled"] = unlabelled
    counts = {
        "n_train": len(frames["train"]),
        "n_real": len(real),
        "n_synthetic": 0 if arm.set_name is None else len(added),
        "n_duplicates": len(added) if arm.kind == "duplicates" else 0,
        "n_pseudo": 0,
        "n_available": {"real": n_real, "synthetic": 0 if made is None else len(made)},
        "n_val": len(frames["val"]),
        "n_test": len(frames["test"]),
        f"n_without_{need}": {"train" if k == "real" else k: n for k, n in without.items()},
    }
    if arm.kind == SYNTHETIC_ONLY and need == "label":
        never = sorted(set(frames["real"]["label"]) - set(frames["train"]["label"]))
        counts["classes_not_learnt"] = never
        if never:
            LOGGER.warning(
                "arm %s: no training image of %s, which it is tested on but cannot learn",
                config.arm, ", ".join(never),
            )  # fmt: skip
    what = "repeated" if arm.set_name is None else "synthetic"
    what = f"without a {need}" if len(unlabelled) else what
    LOGGER.info(
        "arm %s: %d real training images, %d %s added; %d validation, %d test",
        config.arm, counts["n_real"], len(added) + len(unlabelled), what, counts["n_val"],
        counts["n_test"],
    )  # fmt: skip
    return frames, counts


def _limited(real: pd.DataFrame, config: ArmConfig, need: Literal["label", "mask"]) -> pd.DataFrame:
    wanted = config.real_images
    if wanted is None:
        return real
    if wanted > len(real):
        raise ValueError(
            f"real_images: found {wanted}, expected at most {len(real)}, the training images that "
            f"have a {need}; lower it or set it to null"
        )
    return proportionate(real, wanted, need == "label", config.seed)


def state_folder(
    config: ArmConfig | LabelJudgesConfig, frames: dict[str, pd.DataFrame], weights: str | None
) -> Path | None:
    """Where a training's state belongs: a folder named after its settings, images and weights."""
    if config.state is None:
        return None
    # The classifier of another stage's settings is a section of its own.
    exclude: Any = {**dict.fromkeys(FREE, True), "classifier": {"report_to", "memory_gb"}}
    settings = config.model_dump_json(exclude=exclude)
    versions = f"{didgen.__version__}/{torch.__version__}/{timm.__version__}"
    digest = hashlib.sha256(f"{settings}/{versions}".encode())
    if weights is not None and Path(weights).is_file():
        digest.update(Path(weights).read_bytes())
    bytes_of: dict[Path, bytes] = {}
    for name, frame in frames.items():
        rows = zip(frame["id"], frame["label"], frame["image"], frame["mask"], strict=True)
        for own, label, *files in rows:
            digest.update(f"{name}\0{own}\0{label}\0".encode())
            for file in files:
                if isinstance(file, Path):
                    if file not in bytes_of:
                        bytes_of[file] = hashlib.sha256(file.read_bytes()).digest()
                    digest.update(bytes_of[file])
    return config.state / digest.hexdigest()[:16]


def first_outputs(
    stage: Literal["classify", "segment"],
    config: ArmConfig,
    built: Built,
    out: Path,
    state: Path | None,
    fit: Callable[[Log], Outcome],
    unlabelled: pd.DataFrame,
) -> Iterator[np.ndarray]:
    """What the first network of arm `pseudo` gives for images without a label, a batch at a time.

    `fit` trains it in place, logged below `out`, unless its state has it trained: an interruption
    later on costs nothing of it. Raises: ValueError for weights there that do not fit; as `fit`.
    """
    kept = None if state is None else state / FIRST
    if kept is not None and kept.is_file():
        LOGGER.info("the first network was found trained in %s", state)
        try:
            load_model(built.model, kept)
        except (SafetensorError, RuntimeError) as error:
            raise ValueError(
                f"{kept}: no weights of this network ({error}); delete the file to train it anew"
            ) from error
    else:
        LOGGER.info("two trainings: the first network, then one that learns from its labels too")
        fit(training_log(f"{stage}-first", config, out / "first", state))
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(kept) as temporary:
                save_model(built.model, str(temporary))
    device = default_device()
    built.model.to(device)
    precision = arithmetic(config.precision, device)
    for first in range(0, len(unlabelled), EVALUATION_BATCH):
        rows = unlabelled.iloc[first : first + EVALUATION_BATCH].reset_index(drop=True)
        yield predict(built.model, build_unlabelled(rows, config.image_size), device, precision)


def training_log(stage: str, config: ArmConfig, out: Path, state: Path | None) -> Log:
    """The log of an arm's training. Raises: `MissingExtra`."""
    run = f"{stage}-{config.arm}-seed{config.seed}"
    run = run if state is None else f"{run}-{state.name}"
    return Log("training", out, report_to=config.report_to, run=run)


def finish_state(state: Path | None) -> None:
    """Remove the state of a training whose results are written, and nothing else in its folder."""
    if state is not None and state.is_dir() and not state.is_symlink():
        remove_leftovers(state)
        for name in (JUDGE, FIRST):
            (state / name).unlink(missing_ok=True)
        remove_states(state)


def write_results(
    config: ArmConfig,
    out: Path,
    task: str,
    built: Built,
    outcome: Outcome,
    details: dict[str, Any],
    tables: dict[str, pd.DataFrame],
) -> None:
    """Write the tables, `curves.csv`, `config.json` and last `metrics.json` into `out`."""
    arm = parse_arm(config.arm)
    training = dataclasses.asdict(outcome)
    curves = training.pop("curves")
    report = {
        "task": task,
        "arm": config.arm,
        "kind": arm.kind,
        "synthetic_set": arm.set_name,
        "ratio": arm.ratio,
        "seed": config.seed,
        "model": built.describe(),
        "settings": json.loads(config.model_dump_json(exclude=set(OF_ARM))),
        **details,
        "training": training,
    }
    for name, table in tables.items():
        write_csv(out / name, table)
    write_csv(out / "curves.csv", pd.DataFrame(curves))
    write_json(out / "config.json", json.loads(config.model_dump_json()))
    write_json(out / "metrics.json", report)


def grid_of(data: ImageSet) -> str:
    """The size in px at which images are seen and masks are compared."""
    height, width = data.images.shape[:2]
    return f"{width}x{height} px"
