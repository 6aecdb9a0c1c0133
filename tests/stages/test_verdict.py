"""The verdict stage, from result tables made by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from didgen.data.files import read_json, write_csv
from didgen.stages.verdict import Config, VerdictError, read_runs, run


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


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Classification: 12 MEL and 4 NV, 6 MEL gained. Segmentation: no difference on average."""
    labels = ["MEL"] * 12 + ["NV"] * 4
    dice = np.linspace(0.6, 0.9, 20)
    for seed in (0, 1):
        base = [True] * 6 + [False] * 6 + [True] * 4
        tables = {
            "classify/original": predictions(base, labels),
            "classify/synthetic": predictions([True] * 16, labels),
            "segment/original": scores(dice),
            "segment/synthetic": scores(dice + np.tile([0.01, -0.01], 10)),
        }
        for place, table in tables.items():
            name = "scores.csv" if place.startswith("segment") else "predictions.csv"
            write_csv(tmp_path / place / f"seed{seed}" / name, table)
    return tmp_path


def judge(folder: Path, **changes) -> dict:
    usual = dict(
        run="test", classify=folder / "classify", segment=folder / "segment",
        out=folder / "verdict.json", tables=folder / "verdict",
    )  # fmt: skip
    run(Config(**(usual | changes)))
    return read_json(folder / "verdict.json")


def test_known_numbers(results):
    found = judge(results)
    assert found["run"] == "test"
    task = found["tasks"]["classification"]
    assert task["metric"] == "balanced accuracy"
    # Original: (6/12 + 4/4) / 2 = .75; synthetic: 1.
    assert task["arms"]["original"] == {"mean": 0.75, "sd": 0.0, "per_seed": [0.75, 0.75]}
    assert task["arms"]["synthetic"]["mean"] == 1
    assert task["difference"] == pytest.approx(0.25)
    assert task["interval"][0] > 0.1
    # 6 gained: 2 of 64 sign patterns are as large; Holm doubles it. McNemar: 2 * (1/2)^6.
    assert task["p_uncorrected"] == pytest.approx(2 / 64, abs=0.006)
    assert task["p"] == pytest.approx(2 * task["p_uncorrected"])
    assert next(iter(task["other_tests"].values())) == pytest.approx(2 / 64)
    assert (task["n_test"], task["n_clusters"], task["n_seeds"]) == (16, 16, 2)
    # The interval alone would say yes; the corrected test does not agree.
    assert task["verdict"] == "no evidence"
    assert task["sentence"].startswith("no evidence: balanced accuracy +0.250 [")
    assert "over original, p = 0.0" in task["sentence"]
    assert task["sentence"].endswith("n = 2 seeds, 16 test images")


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
    assert list(arms.columns) == ["task", "metric", "arm", "seed", "value"]
    assert len(arms) == 8
    assert sorted(arms["seed"].unique()) == [0, 1]
    tests = pd.read_csv(results / "verdict" / "tests.csv")
    assert len(tests) == 5
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
        read_runs(tmp_path / "nowhere", "scores.csv")
    (results / "segment" / "original" / "seed1" / "scores.csv").unlink()
    with pytest.raises(VerdictError, match="expected the same in every arm"):
        judge(results)
    with pytest.raises(VerdictError, match="at least one of them"):
        judge(results, classify=None, segment=None)


def test_the_best_control_is_the_one_to_beat(results):
    labels = ["MEL"] * 12 + ["NV"] * 4
    strong = predictions([True] * 11 + [False] + [True] * 4, labels)
    for seed in (0, 1):
        write_csv(results / "classify" / "oversampled" / f"seed{seed}" / "predictions.csv", strong)
    task = judge(results)["tasks"]["classification"]
    assert task["best_control"] == "oversampled"
    assert task["difference"] == pytest.approx(1 / 24)


def test_arms_and_seeds_of_an_earlier_run_are_passed_over(tmp_path):
    table = pd.DataFrame({"id": ["a", "b"], "lesion_id": ["", ""], "dice": [0.5, 0.7]})
    for arm in ("original", "synthetic", "retired"):
        for seed in (0, 1, 2):
            folder = tmp_path / arm / f"seed{seed}"
            folder.mkdir(parents=True)
            table.to_csv(folder / "scores.csv", index=False)
    found = read_runs(tmp_path, "scores.csv", ("original", "synthetic"), (0, 2))
    assert {arm: list(tables) for arm, tables in found.items()} == {
        "original": [0, 2],
        "synthetic": [0, 2],
    }
