"""Arm `pseudo`: a first network labels training images, a second one learns from those too."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from torch import nn

from didgen.data.images import read_mask
from didgen.data.manifest import write_manifest
from didgen.downstream import training
from didgen.downstream.classifiers import Built
from didgen.downstream.datasets import DatasetError
from didgen.runtime.files import read_json
from didgen.settings.arms import ArmError
from didgen.stages import arm_training, classify, segment
from tests.stages.test_judges import config as usual
from tests.stages.test_judges import discs

TASKS = [(classify, "label"), (segment, "mask")]
TABLES = {classify: "predictions.csv", segment: "scores.csv"}


def config(stage, data, out: Path, **changes):
    return usual(stage, data, "pseudo", out, **changes)


@pytest.fixture(autouse=True)
def _small_networks(monkeypatch):
    def classifier(name, n_classes, *_):
        layers = nn.Conv2d(3, 4, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        return Built(nn.Sequential(*layers, nn.Linear(4, n_classes)), name, "none")

    def segmenter(name, *_, **__):
        return Built(nn.Conv2d(3, 1, 3, padding=1), name, "none")

    monkeypatch.setattr(classify, "build_classifier", classifier)
    monkeypatch.setattr(segment, "build_segmenter", segmenter)


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Path]:
    """Of ten training images 0 to 5 have a diagnosis, and 5 to 9 have a mask."""
    train = discs(tmp_path, "real", 11, "train")
    table = pd.read_csv(train, keep_default_na=False)[:10]
    table.loc[6:, "label"] = ""
    table.loc[:4, "mask"] = ""
    write_manifest(table, train)
    return {
        "train": train,
        "val": discs(tmp_path, "val", 4, "val"),
        "test": discs(tmp_path, "test", 5, "test"),
    }


@pytest.fixture
def steps(monkeypatch) -> list[int]:
    """Of every step of every training its number; raises in the one that `steps.cut` names."""
    step = training.Step.__call__

    class Steps(list):
        cut: int | None = None

    done = Steps()

    def counted(self, number, batch):
        if len(done) == done.cut:
            done.cut = None
            raise KeyboardInterrupt
        done.append(number)
        return step(self, number, batch)

    monkeypatch.setattr(training.Step, "__call__", counted)
    return done


def test_the_first_network_is_that_of_the_original_images(data, tmp_path, monkeypatch, steps):
    """Its labels are what a classifier of arm `original` and the same seed says."""
    nets, predict = [], arm_training.predict
    monkeypatch.setattr(
        arm_training, "predict",
        lambda model, *rest: nets.append(model) or predict(model, *rest),
    )  # fmt: skip
    classify.run(config(classify, data, tmp_path / "pseudo"))
    original = usual(classify, data, "original", tmp_path / "original")
    tested, predict = [], classify.predict
    monkeypatch.setattr(
        classify, "predict", lambda model, *rest: tested.append(model) or predict(model, *rest)
    )
    classify.run(original)
    ours, theirs = nets[0].state_dict(), tested[0].state_dict()
    assert all((ours[name] == theirs[name]).all() for name in theirs)
    # The same budget for each of the two, as for every arm.
    assert steps == [0, 1] * 3


def test_images_without_a_diagnosis_are_named_and_counted(data, tmp_path, monkeypatch):
    seen = {}
    fit = classify._fit

    def kept(config, built, sets, *rest):
        seen[len(sets)] = sets["train"].frame
        return fit(config, built, sets, *rest)

    monkeypatch.setattr(classify, "_fit", kept)
    # Whatever it sees is a nevus: no image gets the other diagnosis.
    monkeypatch.setattr(
        arm_training, "predict", lambda model, images, *_: np.tile([0.0, 1.0], (len(images), 1))
    )
    classify.run(config(classify, data, tmp_path / "out"))
    found = read_json(tmp_path / "out/metrics.json")
    assert (found["n_real"], found["n_pseudo"], found["n_train"]) == (6, 4, 10)
    assert (found["n_synthetic"], found["n_duplicates"]) == (0, 0)
    assert found["pseudo_classes"] == {"MEL": 0, "NV": 4}
    assert (found["kind"], found["classes"]) == ("pseudo", ["MEL", "NV"])
    first, second = seen[2], seen[3]
    assert first["id"].tolist() == [f"real_{k}" for k in range(6)]
    assert second["label"].tolist() == ["MEL", "NV"] * 3 + ["NV"] * 4
    assert second["id"].tolist() == [f"real_{k}" for k in range(10)]


def test_images_without_a_mask_are_outlined_where_a_pixel_is_likelier_lesion(
    data, tmp_path, monkeypatch
):
    logits = np.full((5, 1, 64, 64), -0.01, np.float32)
    logits[:4, :, 8:24, 4:20] = 0.01
    monkeypatch.setattr(arm_training, "predict", lambda *_: logits)
    seen = {}
    fit = segment._fit

    def kept(config, built, sets, *rest):
        masks = {row.id: read_mask(row.mask) for row in sets["train"].frame.itertuples()}
        seen[len(sets)] = masks
        return fit(config, built, sets, *rest)

    monkeypatch.setattr(segment, "_fit", kept)
    segment.run(config(segment, data, tmp_path / "out", image_size=64))
    found = read_json(tmp_path / "out/metrics.json")
    assert (found["n_real"], found["n_pseudo"], found["n_train"]) == (5, 4, 9)
    assert found["n_pseudo_empty"] == 1
    assert list(seen[2]) == [f"real_{k}" for k in range(5, 10)]
    made = [f"real_{k}" for k in range(4)]
    assert list(seen[3])[5:] == made
    for name, own in zip(made, logits[:4, 0] > 0, strict=True):
        assert (seen[3][name] == own).all()
    # They are no result, and lie nowhere in it.
    assert not list((tmp_path / "out").rglob("*.png"))


@pytest.mark.parametrize(("stage", "need"), TASKS)
def test_a_trained_first_network_is_not_trained_again(data, tmp_path, steps, stage, need):
    stage.run(config(stage, data, tmp_path / "whole", steps=3))
    assert steps == [0, 1, 2, 0, 1, 2]
    steps.clear()
    state, cut = tmp_path / "state", config(stage, data, tmp_path / "cut", steps=3)
    cut = cut.model_copy(update={"state": state})
    steps.cut = 3
    with pytest.raises(KeyboardInterrupt):
        stage.run(cut)
    assert steps == [0, 1, 2] and not (tmp_path / "cut").exists()
    steps.clear()
    stage.run(cut)
    assert steps == [0, 1, 2]
    tables = [pd.read_csv(tmp_path / name / TABLES[stage]) for name in ("whole", "cut")]
    assert tables[0].equals(tables[1])
    assert not [path for path in state.rglob("*") if path.is_file()]


@pytest.mark.parametrize("cut", [2, 5])
def test_each_training_continues_where_it_was_cut(data, tmp_path, steps, monkeypatch, cut):
    monkeypatch.setattr(training, "SAVE_EVERY", 0.0)
    classify.run(config(classify, data, tmp_path / "whole", steps=3))
    steps.clear()
    steps.cut = cut
    again = config(classify, data, tmp_path / "cut", steps=3, state=tmp_path / "state")
    with pytest.raises(KeyboardInterrupt):
        classify.run(again)
    classify.run(again)
    assert steps == [0, 1, 2, 0, 1, 2]
    tables = [pd.read_csv(tmp_path / name / "predictions.csv") for name in ("whole", "cut")]
    assert tables[0].equals(tables[1])


def test_other_weights_in_the_state_are_named(data, tmp_path, steps):
    again = config(classify, data, tmp_path / "out", state=tmp_path / "state")
    steps.cut = 2
    with pytest.raises(KeyboardInterrupt):
        classify.run(again)
    (kept,) = (tmp_path / "state").glob("*/first.safetensors")
    kept.write_bytes(b"cut off")
    with pytest.raises(ValueError, match="first.safetensors: .*delete the file"):
        classify.run(again)


@pytest.mark.parametrize(("stage", "need"), TASKS)
def test_it_needs_images_without_a_label(data, tmp_path, steps, stage, need):
    complete = {**data, "train": discs(tmp_path, "whole", 6, "train")}
    table = pd.read_csv(complete["train"], keep_default_na=False)
    write_manifest(table[:5], complete["train"])
    with pytest.raises(ArmError, match=f"found a {need} for each of 5 images in .*whole.csv"):
        stage.run(config(stage, complete, tmp_path / "out"))
    assert not steps


@pytest.mark.parametrize("column", ["lesion_id", "patient_id"])
@pytest.mark.parametrize("split", ["val", "test"])
def test_unlabelled_images_related_to_held_out_ones_are_refused(
    data, tmp_path, steps, split, column
):
    for name, row in (("train", 8), (split, 0)):
        table = pd.read_csv(data[name], keep_default_na=False, dtype=str)
        table.loc[row, column] = "shared"
        write_manifest(table.astype({"width": int, "height": int}), data[name])
    with pytest.raises(DatasetError, match=rf"{column} in both train and {split}: 1 \(shared\)"):
        classify.run(config(classify, data, tmp_path / "out"))
    # The labelled ones alone are apart.
    classify.run(usual(classify, data, "original", tmp_path / "original"))
    assert steps == [0, 1]


def test_the_parts_of_one_task_are_refused_by_the_other(data, tmp_path):
    with pytest.raises(ValueError, match="for segmentation alone"):
        usual(classify, data, "pseudo_masks", tmp_path)
    with pytest.raises(ValueError, match="for classification alone"):
        usual(segment, data, "pseudo_labels", tmp_path)
