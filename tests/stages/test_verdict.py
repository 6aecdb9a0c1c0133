"""The verdict stage, from result tables made by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from didgen.runtime.files import read_json, write_csv, write_json
from didgen.stages.arm_results import VerdictError, read_arms
from didgen.stages.verdict import Config, run


def predictions(right: list[bool], labels: list[str]) -> pd.DataFrame:
    other = {"MEL": "NV", "NV": "MEL"}
    guesses = [a if r else other[a] for a, r in zip(labels, right, strict=True)]
    return pd.DataFrame({
        "id": [f"t{k}" for k in range(len(labels))],
        "lesion_id": [f"l{k}" for k in range(len(labels))],
        "label": labels,
        "prediction": guesses,
        "p_MEL": [0.9 if g == "MEL" else 0.1 for g in guesses],
        "p_NV": [0.1 if g == "MEL" else 0.9 for g in guesses],
    })  # fmt: skip


def scores(dice: np.ndarray) -> pd.DataFrame:
    names = [f"t{k}" for k in range(len(dice))]
    return pd.DataFrame({"id": names, "lesion_id": names, "dice": dice, "iou": dice / (2 - dice)})


def put(
    folder: Path, arm: str, seed: int, table: pd.DataFrame, val: float = 0.5, **more: object
) -> None:
    """Write an arm's table and metrics.json; the name says how many synthetic images it has."""
    place = folder / arm / f"seed{seed}"
    write_csv(place / ("scores.csv" if "dice" in table else "predictions.csv"), table)
    made = (20 if arm.endswith("-0.5x") else 40) if arm.startswith(("synthetic", "prefix")) else 0
    told = {"n_train": 40 + made, "n_real": 40, "n_synthetic": made}
    told["synthetic_set"] = arm.split("-")[0] if made else None
    told |= {"model": MODEL, "settings": {"steps": 100, "image_size": None}, "n_val": 9}
    write_json(place / "metrics.json", told | {"training": {"best_score": val}} | more)


MODEL = {"name": "resnet10t", "weights": "hub, revision 1", "parameters": 5}
LABELS = ["MEL"] * 12 + ["NV"] * 4
BASE = [True] * 6 + [False] * 6 + [True] * 4


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Classification: 12 MEL and 4 NV, 6 MEL gained. Segmentation: no difference on average."""
    dice = np.linspace(0.6, 0.9, 20)
    for seed in (0, 1):
        put(tmp_path / "classify", "original", seed, predictions(BASE, LABELS))
        put(tmp_path / "classify", "synthetic", seed, predictions([True] * 16, LABELS))
        put(tmp_path / "segment", "original", seed, scores(dice))
        put(tmp_path / "segment", "synthetic", seed, scores(dice + np.tile([0.01, -0.01], 10)))
    return tmp_path


def judge(folder: Path, **changes) -> dict:
    usual = dict(
        run="test", classify=folder / "classify", segment=folder / "segment",
        out=folder / "verdict.json", tables=folder / "verdict", resamples=2000,
    )  # fmt: skip
    run(Config(**(usual | changes)))
    return read_json(folder / "verdict.json")


def test_known_numbers(results):
    found = judge(results, resamples=10_000)
    assert found["run"] == "test"
    task = found["tasks"]["classification"]
    assert task["metric"] == "balanced accuracy"
    # Original: (6/12 + 4/4) / 2 = .75; synthetic: 1.
    told = task["arms"]["original"]
    assert (told["mean"], told["sd"], told["per_seed"]) == (0.75, 0, [0.75, 0.75])
    assert (told["n_real"], told["n_synthetic"], told["val_score"]) == (40, 0, 0.5)
    assert task["arms"]["synthetic"]["mean"] == 1
    assert task["difference"] == pytest.approx(0.25)
    assert task["interval"][0] > 0.1
    # 6 gained: 2 of 64 sign patterns are as large; Holm doubles it. McNemar: 2 * (1/2)^6.
    assert task["p_uncorrected"] == pytest.approx(2 / 64, abs=0.006)
    assert task["p"] == pytest.approx(2 * task["p_uncorrected"])
    assert next(iter(task["other_tests"].values())) == pytest.approx(2 / 64)
    assert task["effect"] == {"name": "Cohen's g of the ensemble", "value": 0.5}
    decided = task["comparisons"]["best control"][0]
    assert [each["difference"] for each in decided["per_seed"]] == pytest.approx([0.25, 0.25])
    assert [each["p"] for each in decided["per_seed"]] == pytest.approx([2 / 64, 2 / 64])
    assert (task["n_test"], task["n_clusters"], task["n_seeds"]) == (16, 16, 2)
    # The interval alone would say yes; the corrected test does not agree.
    assert task["verdict"] == "no evidence"
    assert task["sentence"].startswith("no evidence: balanced accuracy +0.250 [")
    assert "over original, p = 0.0" in task["sentence"]
    assert "n = 2 seeds, 16 test images (the interval alone would say yes" in task["sentence"]


def test_an_effect_that_cancels_is_no_evidence(results):
    task = judge(results)["tasks"]["segmentation"]
    assert task["difference"] == pytest.approx(0, abs=1e-9)
    assert task["interval"][0] < 0 < task["interval"][1]
    assert task["p"] == 1
    assert task["verdict"] == "no evidence"


def test_one_task_alone_needs_no_correction_and_may_help(results):
    task = judge(results, segment=None)["tasks"]["classification"]
    assert task["p"] == task["p_uncorrected"]
    assert task["verdict"] == "helps"


def test_tables_and_settings_are_written(results):
    judge(results)
    arms = pd.read_csv(results / "verdict" / "arms.csv")
    assert list(arms.columns)[:5] == ["task", "metric", "arm", "seed", "value"]
    assert len(arms) == 8
    assert sorted(arms["seed"].unique()) == [0, 1]
    tests = pd.read_csv(results / "verdict" / "tests.csv")
    # Two p-values and the secondary ones, in each of three families that here are the same.
    assert len(tests) == 3 * (4 + 5)
    comparisons = pd.read_csv(results / "verdict" / "comparisons.csv")
    assert len(comparisons) == 2 * 3
    assert read_json(results / "verdict" / "config.json")["run"] == "test"


def test_the_same_results_give_the_same_verdict(results):
    assert judge(results) == judge(results)


def test_arms_tested_on_other_images_are_refused(results):
    path = results / "classify" / "original" / "seed1" / "predictions.csv"
    table = pd.read_csv(path)
    write_csv(path, table.assign(id=table["id"].replace("t3", "t99")))
    with pytest.raises(VerdictError, match="original/seed1.*other test images"):
        judge(results)


def test_rows_in_another_order_are_matched_by_id(results):
    expected = judge(results)
    path = results / "segment" / "original" / "seed0" / "scores.csv"
    write_csv(path, pd.read_csv(path).sample(frac=1, random_state=0))
    assert judge(results) == expected


def test_missing_arms_and_seeds_are_named(results, tmp_path):
    with pytest.raises(VerdictError, match="found arms"):
        read_arms(tmp_path / "nowhere", "scores.csv")
    with pytest.raises(VerdictError, match=r"expected also \['duplicates'\]"):
        judge(results, classify_arms=("original", "duplicates", "synthetic"))
    with pytest.raises(VerdictError, match="treatment: found 'original'"):
        judge(results, treatment="original")
    (results / "segment" / "original" / "seed1" / "scores.csv").unlink()
    with pytest.raises(VerdictError, match="expected the same in every arm"):
        judge(results)
    with pytest.raises(VerdictError, match="at least one of them"):
        judge(results, classify=None, segment=None)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"model": MODEL | {"weights": "none"}}, "model.weights: found 'none', expected 'hub, re"),
        ({"model": MODEL | {"name": "vgg16"}}, "model.name: found 'vgg16', expected 'resnet10t'"),
        ({"settings": {"steps": 50, "image_size": None}}, "settings.steps: found 50, expected 100"),
        ({"settings": {"steps": 100}}, None),
        ({"settings": {"steps": 100, "image_size": 224}}, "image_size: found 224, expected None"),
        ({"n_real": 39}, "n_real: found 39, expected 40"),
        ({"n_val": 8}, "n_val: found 8, expected 9"),
    ],
)
def test_arms_that_were_trained_in_another_way_are_refused(results, more, words):
    """Otherwise weights that were out of reach for one arm would pass for an effect of images."""
    table = scores(np.linspace(0.6, 0.9, 20))
    put(results / "segment", "synthetic", 1, table, **more)
    if words is None:
        judge(results)
        return
    with pytest.raises(VerdictError, match=f"1 of 4 trainings differ.*synthetic/seed1 .*{words}"):
        judge(results)


def test_another_arithmetic_is_allowed_and_said(results, caplog):
    table = scores(np.linspace(0.6, 0.9, 20))
    training = {"best_score": 0.5, "precision": "bfloat16"}
    put(results / "segment", "synthetic", 1, table, training=training)
    judge(results)
    assert "bfloat16" in caplog.text


def test_results_without_metrics_are_refused(results):
    path = results / "segment" / "synthetic" / "seed1" / "metrics.json"
    write_json(path, {"n_train": 40, "n_synthetic": 4})
    with pytest.raises(VerdictError, match="found no training"):
        judge(results)
    path.unlink()
    with pytest.raises(VerdictError, match="no such file"):
        judge(results)


def test_the_best_control_is_chosen_on_validation_images(results):
    """The control that happens to be best on the test images is not the one to beat."""
    strong = predictions([True] * 11 + [False] + [True] * 4, LABELS)
    for seed in (0, 1):
        put(results / "classify", "oversampled", seed, strong, val=0.4)
    assert judge(results)["tasks"]["classification"]["best_control"] == "original"
    for seed in (0, 1):
        put(results / "classify", "oversampled", seed, strong, val=0.6)
    task = judge(results)["tasks"]["classification"]
    assert task["best_control"] == "oversampled"
    assert task["difference"] == pytest.approx(1 / 24)
    assert "over the best control (oversampled)" in task["sentence"]
    families = task["comparisons"]
    told = {k: [(each["arm"], each["control"]) for each in v] for k, v in families.items()}
    assert told == {
        "best control": [("synthetic", "oversampled")],
        "original": [("synthetic", "original"), ("oversampled", "original")],
        "every control": [("synthetic", "original"), ("synthetic", "oversampled")],
    }


def test_more_synthetic_arms_ask_for_a_stricter_correction(results):
    alone = judge(results, segment=None)["tasks"]["classification"]
    for seed in (0, 1):
        for arm in ("synthetic-0.5x", "prefix"):
            put(results / "classify", arm, seed, predictions([True] * 16, LABELS))
    task = judge(results, segment=None)["tasks"]["classification"]
    assert task["p_uncorrected"] == alone["p_uncorrected"]
    assert task["p"] == pytest.approx(3 * alone["p"])
    assert (alone["verdict"], task["verdict"]) == ("helps", "no evidence")
    assert task["arms"]["synthetic-0.5x"]["n_synthetic"] == 20
    assert [task["arms"][a]["synthetic_set"] for a in ("prefix", "synthetic-0.5x")] == [
        "prefix",
        "synthetic",
    ]
    lead = judge(results, segment=None, treatment="prefix")["tasks"]["classification"]
    assert lead["treatment"] == "prefix"


def test_each_task_has_its_own_arms(results):
    for seed in (0, 1):
        put(results / "classify", "weighted", seed, predictions(BASE, LABELS))
        put(results / "segment", "retired", seed, scores(np.linspace(0.6, 0.9, 20)))
    both = ("original", "synthetic")
    found = judge(results, classify_arms=(*both, "weighted"), segment_arms=both)["tasks"]
    assert list(found["classification"]["arms"]) == ["original", "synthetic", "weighted"]
    assert list(found["segmentation"]["arms"]) == ["original", "synthetic"]


def test_other_metrics_may_decide(results):
    found = judge(results, classification_metric="macro F1", segmentation_metric="IoU")["tasks"]
    # Original: MEL 2 * 6 / (12 + 6), NV 2 * 4 / (4 + 10).
    mean = found["classification"]["arms"]["original"]["mean"]
    assert mean == pytest.approx((12 / 18 + 8 / 14) / 2)
    assert found["segmentation"]["metric"] == "IoU"
    plain = judge(results, classification_metric="accuracy")["tasks"]["classification"]
    assert plain["difference"] == pytest.approx(6 / 16)


def test_patients_are_the_unit_of_chance(results):
    for arm in ("original", "synthetic"):
        for seed in (0, 1):
            path = results / "classify" / arm / f"seed{seed}" / "predictions.csv"
            table = pd.read_csv(path)
            write_csv(path, table.assign(patient_id=["p1"] * 6 + ["p2"] * 6 + ["p3"] * 4))
    task = judge(results, segment=None)["tasks"]["classification"]
    assert task["n_clusters"] == 3
    assert task["verdict"] == "no evidence"


def test_arms_and_seeds_of_an_earlier_run_are_passed_over(tmp_path):
    table = pd.DataFrame({"id": ["a", "b"], "lesion_id": ["", ""], "dice": [0.5, 0.7]})
    for arm in ("original", "synthetic", "retired"):
        for seed in (10, 1, 2):
            put(tmp_path, arm, seed, table)
    found = read_arms(tmp_path, "scores.csv", ("original", "synthetic"), (2, 10))
    assert {arm: list(own.tables) for arm, own in found.items()} == {
        "original": [2, 10],
        "synthetic": [2, 10],
    }
