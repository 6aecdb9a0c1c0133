"""Train the classifiers of real images that judge the classes of synthetic ones, once for a run."""

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from didgen.data.leaks import groups_of
from didgen.downstream.classifiers import (
    Built,
    ClassifierCard,
    build_classifier,
    classification_loss,
    load_classifier,
    save_classifier,
)
from didgen.downstream.datasets import (
    ImageSet,
    build,
    class_codes,
    keep_in_memory,
    of_classes,
    usable_rows,
)
from didgen.downstream.saved import SavedNetworkError
from didgen.downstream.training import predict, seeded, train
from didgen.metrics.classification import balanced_accuracy
from didgen.runtime.files import sha256_file, write_csv, write_json
from didgen.runtime.outputs import check_output, output_folder, paths_read
from didgen.runtime.precision import default_device
from didgen.settings.label_judges import Config
from didgen.stages.arm_training import JUDGE, finish_state, state_folder
from didgen.training.log import Log

LOGGER = logging.getLogger(__name__)


def run(config: Config) -> None:
    """Write `fold<k>.safetensors`, `judges.json`, `judgements.csv` and `config.json`.

    The judge of a fold learns from the real images of all others, and `judgements.csv` has the
    class that it sees in each image of its own. A class of one lesion cannot be judged, and where
    the rarest has fewer lesions than folds are asked for, there are as many folds as it has
    lesions. With `state`, judges that are done are not trained again after an interruption.
    Raises: ValueError where no validation image has a class of theirs; `TrainingStopped`.
    """
    read = paths_read(config, config.classifier.weights)
    check_output(config.out, "label_judges", read)
    real = _of_several_lesions(usable_rows(config.train, "label")[0])
    # Classes that no judge learns cannot be seen.
    val = of_classes(
        usable_rows(config.val, "label")[0], class_codes([real]), config.val,
        "no judge learns their class", "the judges stop by them: add some",
    )  # fmt: skip
    folds = _folds(real, config)
    held_out = {f"fold{k}": real[folds == k] for k in range(int(folds.max()) + 1)}
    # Of all judges together: every file is read once for its checksum.
    state = state_folder(config, {"real": real, "val": val, **held_out}, config.classifier.weights)
    states = {k: state and state.with_name(f"{state.name}-{k}") for k in held_out}
    # A tracker's files are continued where the trainings are.
    with output_folder(config.out, "label_judges", read, key=state.name if state else None) as out:
        _report(config, out, real, val, held_out, states)
    for own in states.values():
        finish_state(own)


def _report(
    config: Config, out: Path, real: pd.DataFrame, val: pd.DataFrame,
    held_out: dict[str, pd.DataFrame], states: dict[str, Path | None],
) -> None:  # fmt: skip
    classes, parts, files = class_codes([real]), [], {}
    # Numbered over all images: a fold alone may miss the one that relates two others.
    lesions = groups_of(real)
    for fold, (name, shown) in enumerate(held_out.items()):
        LOGGER.info("judge %d of %d", fold + 1, len(held_out))
        frames = {"train": real.drop(index=shown.index), "val": val, "shown": shown}
        sets = {
            key: build(frame.reset_index(drop=True), config.classifier.image_size, classes)
            for key, frame in frames.items()
        }
        built, card = _judge(sets, classes, config, out, fold, states[name])
        path = out / f"{name}.safetensors"
        save_classifier(path, built.model, card)
        files[path.name] = sha256_file(path)
        device = default_device()
        seen = predict(built.model.to(device), sets["shown"], device, card.precision).argmax(1)
        columns = {"id": shown["id"], "kind": "real", "fold": fold, "label": shown["label"]}
        columns |= {"seen": [classes[k] for k in seen], "lesion": lesions[shown.index]}
        parts.append(pd.DataFrame(columns))
    write_csv(out / "judgements.csv", pd.concat(parts, ignore_index=True))
    files["judgements.csv"] = sha256_file(out / "judgements.csv")
    write_json(out / "config.json", json.loads(config.model_dump_json()))
    judges = {"classes": classes, "folds": len(held_out), "model": built.describe()}
    write_json(out / "judges.json", judges | {"files": files})


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


def _folds(real: pd.DataFrame, config: Config) -> np.ndarray:
    """The fold of each real image: lesions whole, classes even."""
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
    return folds


def _judge(
    sets: dict[str, ImageSet], classes: list[str], config: Config, out: Path, fold: int,
    state: Path | None,
) -> tuple[Built, ClassifierCard]:  # fmt: skip
    """The classifier of a fold and its card: found in its state, or trained."""
    kept = None if state is None else state / JUDGE
    if kept is not None and kept.is_file():
        LOGGER.info("this judge was found in %s", state)
        try:
            return load_classifier(kept, "label_judges")
        except SavedNetworkError as error:
            raise ValueError(f"{error}; delete {kept} to train this judge anew") from None
    judge = config.classifier
    run = f"label_judges-fold{fold}" + (f"-{state.name}" if state is not None else "")
    log = Log("training", out / f"fold{fold}", report_to=judge.report_to, run=run)
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
    height, width = sets["train"].images.shape[:2]
    card = ClassifierCard(
        name=built.name,
        classes=tuple(classes),
        image_size=judge.image_size,
        shape=(height, width),
        weights=built.weights,
        standardized=built.standardized,
        precision=outcome.precision,
    )
    if kept is not None:
        save_classifier(kept, built.model, card)
    return built, card
