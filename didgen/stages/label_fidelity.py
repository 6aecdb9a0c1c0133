"""Do synthetic images show the class that was asked for? Judged by classifiers of real images."""

import dataclasses
import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from didgen.data.leaks import groups_of
from didgen.downstream.classifiers import Built, build_classifier, classification_loss
from didgen.downstream.datasets import build, class_codes, keep_in_memory, usable_rows
from didgen.downstream.training import predict, seeded, train
from didgen.metrics.agreement import class_agreement, seen_instead
from didgen.metrics.classification import balanced_accuracy
from didgen.runtime.files import read_object, write_csv, write_json
from didgen.runtime.outputs import output_folder, paths_read
from didgen.runtime.precision import default_device
from didgen.settings.label_fidelity import Config
from didgen.stages.arm_training import JUDGEMENTS, finish_state, state_folder
from didgen.training.log import Log

LOGGER = logging.getLogger(__name__)
REAL, SYNTHETIC = "real", "synthetic"


def run(config: Config) -> None:
    """Write `label_fidelity.json`, `judgements.csv` and `config.json`.

    Each real image is judged by the one classifier that was not trained on it or on another of its
    lesion; each synthetic image by all of them, and the mean counts. Raises: ValueError when no
    synthetic image has a class that can be judged. A class of one lesion cannot, and where the
    rarest has fewer lesions than folds are asked for, there are as many folds as it has lesions.
    With `state`, judges that are done are not trained again after an interruption.
    """
    read = paths_read(config, config.classifier.weights)
    # A tracker's files are continued where the trainings are.
    digest = hashlib.sha256(config.model_dump_json().encode()).hexdigest()[:16]
    key = digest if config.state is not None else None
    with output_folder(config.out, "label_fidelity", read, key) as out:
        states = _report(config, out, _frames(config))
    for state in states:
        finish_state(state)


def _report(config: Config, out: Path, frames: dict[str, pd.DataFrame]) -> list[Path | None]:
    """Write the results; returns the folders of the trainings' states."""
    # Numbered over all images: a fold alone may miss the one that relates two others.
    lesions = {REAL: groups_of(frames["real"]), SYNTHETIC: groups_of(frames["made"])}
    classes, folds = _folds(frames["real"], config)
    parts, states, model, count = [], [], {}, int(folds.max()) + 1
    for fold in range(count):
        LOGGER.info("judge %d of %d", fold + 1, count)
        held_out = folds == fold
        shown = {REAL: frames["real"][held_out], SYNTHETIC: frames["made"]}
        learned = {"train": frames["real"][~held_out], "val": frames["val"]}
        state, model, seen = _judge(learned, shown, classes, config, out, fold)
        states.append(state)
        for kind, frame in shown.items():
            columns = {"id": frame["id"], "kind": kind, "fold": fold, "label": frame["label"]}
            columns |= {"seen": seen[kind], "lesion": lesions[kind][frame.index]}
            parts.append(pd.DataFrame(columns))
    judgements = pd.concat(parts, ignore_index=True)
    summary = _summary(judgements, classes, config) | {
        "model": model,
        "folds": count,
        "confidence": config.confidence,
        "note": "real: images of a fold by the classifier that was not trained on it; synthetic: "
        "the mean over all classifiers; intervals: Wilson, over lesions or synthetic images",
    }
    LOGGER.info("seen as asked: %.3f; real images seen as diagnosed: %.3f",
                summary["mean"][SYNTHETIC], summary["mean"][REAL])  # fmt: skip
    write_csv(out / "judgements.csv", judgements)
    write_json(out / "config.json", json.loads(config.model_dump_json()))
    write_json(out / "label_fidelity.json", summary)
    return states


def _frames(config: Config) -> dict[str, pd.DataFrame]:
    """Real training and validation images with a label, and synthetic ones of their classes."""
    paths = {"real": config.train, "val": config.val, "made": config.synthetic}
    frames = {name: usable_rows(path, "label")[0] for name, path in paths.items()}
    frames["real"] = _of_several_lesions(frames["real"])
    frames["made"] = _of_classes(
        frames, "made", config.synthetic, "no real image has their class",
        "make images of those classes",
    )  # fmt: skip
    # Classes that no judge learns cannot be seen.
    frames["val"] = _of_classes(
        frames, "val", config.val, "no judge learns their class",
        "the judges stop by them: add some",
    )  # fmt: skip
    return frames


def _of_classes(
    frames: dict[str, pd.DataFrame], name: str, path: Path, why: str, advice: str
) -> pd.DataFrame:
    """The rows of `name` whose class real images have; the others are counted.

    Raises: ValueError where none is left.
    """
    rows, classes = frames[name], sorted(set(frames["real"]["label"]))
    known = rows["label"].isin(classes)
    if not known.all():
        LOGGER.info("%s: %d of %d images left out: %s", path, (~known).sum(), len(known), why)
    if not known.any():
        raise ValueError(
            f"{path}: none of {len(known)} images has a class of the real ones, {classes}; {advice}"
        )
    return rows[known].reset_index(drop=True)


def _of_several_lesions(real: pd.DataFrame) -> pd.DataFrame:
    """The images of classes with two lesions or more: one is learnt from and another judged."""
    labels, groups = real["label"], groups_of(real)
    alone = {label for label in set(labels) if len(set(groups[labels == label])) < 2}
    if alone:
        LOGGER.warning(
            "%d of %d real images left out: of %s there is one lesion or patient only",
            int(labels.isin(alone).sum()), len(real), ", ".join(sorted(alone)),
        )  # fmt: skip
    return real[~labels.isin(alone)].reset_index(drop=True)


def _folds(real: pd.DataFrame, config: Config) -> tuple[list[str], np.ndarray]:
    """The classes, and the fold of each real image: lesions whole, classes even."""
    groups = groups_of(real)
    labels = real["label"].to_numpy(str)
    lesions = {c: len(np.unique(groups[labels == c])) for c in np.unique(labels)}
    rarest = min(lesions, key=lesions.__getitem__)
    count = min(config.folds, lesions[rarest])
    if count < config.folds:
        LOGGER.warning("%d folds in place of %d: %s has %d lesions or patients",
                       count, config.folds, rarest, count)  # fmt: skip
    folds = np.empty(len(real), int)
    maker = StratifiedGroupKFold(count, shuffle=True, random_state=config.seed)
    for fold, (_, held_out) in enumerate(maker.split(labels, labels, groups)):
        folds[held_out] = fold
    return class_codes([real]), folds


def _judge(
    learned: dict[str, pd.DataFrame], shown: dict[str, pd.DataFrame],
    classes: list[str], config: Config, out: Path, fold: int,
) -> tuple[Path | None, dict[str, Any], dict[str, list[str]]]:  # fmt: skip
    """The class that one classifier sees in each image shown: found in its state, or trained.

    Also returns the folder of its state, and what it is.
    """
    state = state_folder(config, {**learned, **shown}, config.classifier.weights)
    kept = None if state is None else state / JUDGEMENTS
    if kept is not None and kept.is_file():
        LOGGER.info("this judge's judgements were found in %s", state)
        saved = read_object(kept)
        seen = saved.get("seen")
        if not isinstance(seen, dict) or "model" not in saved or any(
            not isinstance(seen.get(kind), list) or len(seen[kind]) != len(frame)
            for kind, frame in shown.items()
        ):  # fmt: skip
            raise ValueError(
                f"{kept}: found no judgement of each image; delete the file to judge them anew"
            )
        return state, saved["model"], seen
    built, seen = _train_judge(learned, shown, classes, config, out, fold, state)
    if kept is not None:
        write_json(kept, {"model": built.describe(), "seen": seen})
    return state, built.describe(), seen


def _train_judge(
    learned: dict[str, pd.DataFrame], shown: dict[str, pd.DataFrame],
    classes: list[str], config: Config, out: Path, fold: int, state: Path | None,
) -> tuple[Built, dict[str, list[str]]]:  # fmt: skip
    judge = config.classifier
    run = f"label_fidelity-fold{fold}" + (f"-{state.name}" if state is not None else "")
    log = Log("training", out / f"fold{fold}", report_to=judge.report_to, run=run)
    sets = {
        name: build(frame.reset_index(drop=True), judge.image_size, classes)
        for name, frame in {**learned, **shown}.items()
        if len(frame)
    }
    seed = config.seed + fold
    with seeded(seed):
        built = build_classifier(
            judge.model, len(classes), sets["train"].image_size, judge.pretrained, judge.weights
        )
    keep_in_memory(list(sets.values()), judge.memory_gb)
    outcome = train(
        built.model, sets["train"], sets["val"], classification_loss,
        lambda outputs, data: balanced_accuracy(data.true_classes(), outputs.argmax(1)), judge,
        seed, state=state, log=log,
    )  # fmt: skip
    device = default_device()
    return built, {
        name: [classes[k] for k in predict(built.model, sets[name], device, outcome.precision)
               .argmax(1)]
        for name in shown
    }  # fmt: skip


def _summary(judgements: pd.DataFrame, classes: list[str], config: Config) -> dict[str, Any]:
    """Agreement of each class in synthetic and in real images, and what is seen instead."""
    agreement, shares = {}, {}
    for kind, rows in judgements.groupby("kind"):
        # A real image has one judge, a synthetic one a judge each fold.
        n_judges = int(rows.groupby("id")["fold"].size().max())
        rows = rows.sort_values(["fold", "id"], kind="stable") if n_judges > 1 else rows
        seen = rows["seen"].to_numpy(str).reshape(n_judges, -1)
        first = rows.iloc[: seen.shape[1]]
        labels, lesions = first["label"].to_numpy(str), first["lesion"].to_numpy(str)
        agreement[kind] = class_agreement(labels, seen, lesions, confidence=config.confidence)
        shares[kind] = seen_instead(labels, seen, classes).tolist()
    asked = [code for code in classes if code in agreement[SYNTHETIC]]
    return {
        "classes": {
            code: {kind: dataclasses.asdict(agreement[kind][code]) for kind in (SYNTHETIC, REAL)}
            for code in asked
        },
        # Both over the same classes.
        "mean": {
            kind: float(np.mean([agreement[kind][code].share for code in asked]))
            for kind in (SYNTHETIC, REAL)
        },
        "seen": {"classes": classes, **shares},
    }
