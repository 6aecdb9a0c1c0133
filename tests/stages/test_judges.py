"""Classify, segment and verdict end to end on small discs: files, counts and refusals."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from didgen.data.manifest import write_manifest
from didgen.runtime.files import read_json, write_png
from didgen.stages import classify, segment, verdict

CODES = ("MEL", "NV")


def discs(folder: Path, name: str, n: int, split: str, **columns: str) -> Path:
    """A manifest of red discs (MEL) and green ones (NV); the last image has no mask."""
    rng = np.random.default_rng(len(name))
    rows, cols = np.mgrid[:32, :32]
    table = []
    for k in range(n):
        own = f"{name}_{k}"
        disc = (rows - 16) ** 2 + (cols - 16) ** 2 < rng.uniform(6, 12) ** 2
        image = rng.integers(150, 200, (32, 32, 3)).astype(np.uint8)
        image[disc] = (200, 40, 40) if k % 2 == 0 else (40, 160, 40)
        write_png(folder / "images" / f"{own}.png", image)
        write_png(folder / "masks" / f"{own}.png", disc)
        mask = f"masks/{own}.png" if k < n - 1 else ""
        table.append({
            "id": own, "image": f"images/{own}.png", "mask": mask, "label": CODES[k % 2],
            "split": split, "lesion_id": own, "patient_id": "", "source": "test",
            "width": 32, "height": 32, "sha256": "",
        })  # fmt: skip
    write_manifest(pd.DataFrame(table).assign(**columns), folder / f"{name}.csv")
    return folder / f"{name}.csv"


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Path]:
    return {
        "train": discs(tmp_path, "real", 6, "train"),
        "val": discs(tmp_path, "val", 4, "val"),
        "test": discs(tmp_path, "test", 5, "test"),
        "synthetic": discs(tmp_path, "made", 4, "train", parent_ids="real_0;real_1"),
    }


def config(stage, data: dict[str, Path], arm: str, out: Path, **changes):
    usual = dict(arm=arm, out=out, steps=2, batch_size=4, eval_every=1, precision="float32")
    return stage.Config(**(data | usual | changes))


def test_from_images_to_a_verdict(data, tmp_path):
    results = tmp_path / "results"
    for name, stage in (("classify", classify), ("segment", segment)):
        for arm in ("original", "synthetic"):
            stage.run(config(stage, data, arm, results / name / arm / "seed0"))
    found = read_json(results / "classify" / "synthetic" / "seed0" / "metrics.json")
    assert (found["n_train"], found["n_synthetic"], found["n_test"]) == (10, 4, 5)
    assert found["classes"] == list(CODES)
    assert "ImageNet" in found["model"]["weights"]
    assert found["training"]["steps"] == 2
    assert (found["settings"]["steps"], found["settings"]["model"]) == (2, "efficientnet_lite0")
    assert not {"arm", "seed", "train", "out", "synthetic"} & set(found["settings"])
    # Fitted on validation, for the test images.
    assert 1 / 20 <= found["test"]["temperature"] <= 20
    assert 0 <= found["test"]["ece_after_temperature"] <= 1
    table = pd.read_csv(results / "classify" / "original" / "seed0" / "predictions.csv")
    columns = ["id", "lesion_id", "patient_id", "cluster", "label", "prediction", "p_MEL", "p_NV"]
    assert list(table.columns) == columns
    assert table[["p_MEL", "p_NV"]].sum(axis=1).to_numpy() == pytest.approx(np.ones(5), abs=1e-5)

    found = read_json(results / "segment" / "original" / "seed0" / "metrics.json")
    assert (found["n_train"], found["n_test"]) == (5, 4)
    assert found["n_without_mask"] == {"train": 1, "val": 1, "test": 1}
    table = pd.read_csv(results / "segment" / "original" / "seed0" / "scores.csv")
    assert table["dice"].mean() == pytest.approx(found["test"]["dice"], abs=1e-5)
    curves = pd.read_csv(results / "segment" / "original" / "seed0" / "curves.csv")
    assert curves["step"].tolist() == [1, 2]

    verdict.run(
        verdict.Config(
            run="small",
            classify=results / "classify",
            segment=results / "segment",
            out=results / "verdict.json",
            tables=results / "verdict",
            control="original",
            test=data["test"],
        )  # fmt: skip
    )
    tasks = read_json(results / "verdict.json")["tasks"]
    assert {task["verdict"] for task in tasks.values()} == {"inconclusive"}
    assert "one seed cannot tell" in tasks["segmentation"]["sentence"]


def test_the_original_arm_ignores_synthetic_images(data, tmp_path):
    table = pd.read_csv(data["synthetic"], keep_default_na=False)
    write_manifest(table.assign(parent_ids="test_0"), data["synthetic"])
    classify.run(config(classify, data, "original", tmp_path / "out"))
    assert read_json(tmp_path / "out" / "metrics.json")["n_synthetic"] == 0
    with pytest.raises(ValueError, match="made from test images"):
        classify.run(config(classify, data, "synthetic", tmp_path / "out2"))
    assert not (tmp_path / "out2").exists()


def test_synthetic_images_alone_are_learnt_from_and_real_ones_tested_on(data, tmp_path, caplog):
    """Also where the set lacks a diagnosis, which can then not be learnt."""
    table = pd.read_csv(data["synthetic"], keep_default_na=False)
    for labels, never in ((["MEL", "NV"] * 2, []), (["MEL"] * 4, ["NV"])):
        write_manifest(table.assign(label=labels), data["synthetic"])
        out = tmp_path / f"{len(never)}"
        classify.run(config(classify, data, "synthetic_only", out, model="resnet10t"))
        found = read_json(out / "metrics.json")
        assert (found["n_train"], found["n_real"], found["n_synthetic"]) == (4, 0, 4)
        assert (found["n_val"], found["n_test"]) == (4, 5)
        assert (found["kind"], found["synthetic_set"]) == ("synthetic_only", "synthetic")
        assert found["classes"] == list(CODES) and found["classes_not_learnt"] == never
        assert found["training"]["steps"] == 2
        assert ("no training image of NV" in caplog.text) is bool(never)
        ids = set(pd.read_csv(out / "predictions.csv")["id"])
        assert ids == {f"test_{k}" for k in range(5)}


def test_synthetic_images_alone_must_not_come_from_held_out_ones(data, tmp_path):
    table = pd.read_csv(data["synthetic"], keep_default_na=False)
    write_manifest(table.assign(parent_ids="test_0"), data["synthetic"])
    with pytest.raises(ValueError, match="made from test images"):
        segment.run(config(segment, data, "synthetic_only", tmp_path / "out"))


def test_pairs_teach_no_classifier(data, tmp_path):
    """Neither do the copies that match the set in number count them."""
    from didgen.stages.arm_training import load_arm

    table = pd.read_csv(data["synthetic"], keep_default_na=False)
    conditions = ["", "masks/made_1.png", "", ""]
    write_manifest(table.assign(condition=conditions), data["synthetic"])
    for arm in ("synthetic", "duplicates"):
        frames, counts = load_arm(config(classify, data, arm, tmp_path / "out"), "label")
        assert counts["n_synthetic"] + counts["n_duplicates"] == 3
        assert "made_1" not in set(frames["train"]["id"])
    _, counts = load_arm(config(segment, data, "synthetic", tmp_path / "out"), "mask")
    assert counts["n_synthetic"] == 3  # all that have a mask


def test_the_synthetic_arm_needs_synthetic_images(data, tmp_path):
    with pytest.raises(ValueError, match="--synthetic"):
        segment.run(config(segment, data | {"synthetic": None}, "synthetic", tmp_path / "out"))


@pytest.mark.parametrize(
    ("arm", "n_train", "n_duplicates", "n_synthetic"),
    [
        ("classic", 6, 0, 0),
        ("oversampled", 6, 0, 0),
        ("weighted", 6, 0, 0),
        ("duplicates", 10, 4, 0),
        ("duplicates-1.5x", 15, 9, 0),
        ("ours-0.5x", 9, 0, 3),
    ],
)
def test_every_arm_has_its_images_and_the_same_budget(
    data, tmp_path, arm, n_train, n_duplicates, n_synthetic
):
    classify.run(config(classify, data, arm, tmp_path / "out", model="resnet10t"))
    found = read_json(tmp_path / "out" / "metrics.json")
    assert (found["n_train"], found["n_real"]) == (n_train, 6)
    assert (found["n_duplicates"], found["n_synthetic"]) == (n_duplicates, n_synthetic)
    assert found["training"]["steps"] == 2
    assert found["arm"] == arm
    assert found["synthetic_set"] == ("ours" if arm.startswith("ours") else None)


def test_pairs_have_duplicates_and_classic_arms_but_none_for_classes(data, tmp_path):
    for arm, n in (("duplicates", 8), ("classic", 5)):
        segment.run(config(segment, data, arm, tmp_path / arm, encoder="resnet10t"))
        found = read_json(tmp_path / arm / "metrics.json")
        assert found["n_train"] == n
        table = pd.read_csv(tmp_path / arm / "scores.csv")
        for column in ("threshold_jaccard", "boundary_iou", "hd95"):
            assert table[column].mean() == pytest.approx(found["test"][column], abs=1e-3)
    for arm in ("oversampled", "weighted"):
        with pytest.raises(ValueError, match="for classification alone"):
            config(segment, data, arm, tmp_path / "out")


def test_fewer_real_images_are_the_same_for_every_arm(data, tmp_path):
    for arm, n in (("original", 4), ("synthetic", 8)):
        classify.run(config(classify, data, arm, tmp_path / arm, real_images=4, model="resnet10t"))
        found = read_json(tmp_path / arm / "metrics.json")
        assert (found["n_real"], found["n_train"]) == (4, n)
    with pytest.raises(ValueError, match="real_images: found 7, expected at most 6"):
        classify.run(config(classify, data, "original", tmp_path / "out", real_images=7))


def test_unfit_networks_are_refused_before_images_are_decoded(data, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="batch_size: found 1, expected at least 2"):
        config(segment, data, "original", tmp_path, model="dcsau-net", batch_size=1)

    def decoded(*_):
        raise AssertionError("the images were decoded first")

    for stage in (classify, segment):
        monkeypatch.setattr(stage, "keep_in_memory", decoded)
    with pytest.raises(ValueError, match="no model 'resnet99'"):
        classify.run(config(classify, data, "original", tmp_path / "out", model="resnet99"))
    with pytest.raises(ValueError, match="multiple of 32"):
        segment.run(config(segment, data, "original", tmp_path / "out", image_size=48))


def test_unfit_arms_are_refused_before_anything_is_read(data, tmp_path):
    with pytest.raises(ValueError, match="found arm 'A/B'"):
        config(classify, data, "A/B", tmp_path)
    with pytest.raises(ValueError, match="at most 0.67x"):
        classify.run(config(classify, data, "synthetic-2x", tmp_path / "out"))


def test_an_ended_training_continues_and_then_removes_only_its_state(data, tmp_path, monkeypatch):
    from didgen.downstream import training

    monkeypatch.setattr(training, "SAVE_EVERY", 0.0)
    changes = dict(steps=3, model="resnet10t")
    classify.run(config(classify, data, "weighted", tmp_path / "whole", **changes))
    step, calls = training.Step.__call__, []

    def cut(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(training.Step, "__call__", cut)
    state = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        classify.run(config(classify, data, "weighted", tmp_path / "cut", state=state, **changes))
    (kept,) = state.glob("*/step-0000002")
    notes = kept.with_name("notes.txt"), kept / "notes.txt"
    for note in notes:
        note.write_text("mine")
    monkeypatch.setattr(training.Step, "__call__", step)
    # Another seed is another training: it does not take up the first one's state.
    other = config(classify, data, "weighted", tmp_path / "other", state=state, seed=1, **changes)
    classify.run(other)
    assert len(list(state.glob("*/step-0000002"))) == 1
    classify.run(config(classify, data, "weighted", tmp_path / "cut", state=state, **changes))
    assert {path for path in state.rglob("*") if path.is_file()} == set(notes)
    tables = [pd.read_csv(tmp_path / n / "predictions.csv") for n in ("whole", "cut")]
    assert tables[0].equals(tables[1])


def test_a_tracker_gets_the_losses_and_changes_nothing_else(data, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = dict(model="resnet10t", state=tmp_path / "state")
    for name, told in (("plain", "none"), ("told", "tensorboard")):
        out = tmp_path / name
        classify.run(config(classify, data, "original", out, report_to=told, **options))
    events = EventAccumulator(str(tmp_path / "told/tensorboard")).Reload()
    assert [event.step for event in events.Scalars("training/loss")] == [1, 2]
    curves = pd.read_csv(tmp_path / "told/curves.csv")
    scores = [event.value for event in events.Scalars("validation/val_score")]
    assert scores == pytest.approx(curves["val_score"].tolist())
    found = [read_json(tmp_path / name / "metrics.json") for name in ("plain", "told")]
    for one in found:
        one["training"].pop("seconds")
    assert found[0] == found[1]


def test_a_missing_tracker_is_named_before_images_are_decoded(data, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for stage in (classify, segment):
        monkeypatch.setattr(stage, "keep_in_memory", None)
        with pytest.raises(ValueError, match="report_to: wandb needs the package wandb: `pip"):
            stage.run(config(stage, data, "original", tmp_path / "out", report_to="wandb"))
