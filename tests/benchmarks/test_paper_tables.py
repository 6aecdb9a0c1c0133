"""The paper's tables from runs made by hand: every arm a row, every network a column."""

from pathlib import Path

import pytest

from benchmarks.paper_tables import columns_of, table_1, table_2, table_3
from didgen.runtime.files import write_json

SEEDS = (0, 1)


def compared(arm: str, difference: float, p: float) -> dict:
    ends = [difference - 0.02, difference + 0.02]
    return {
        "arm": arm, "difference": difference, "interval": ends, "p": p,
        "per_seed": [{"seed": seed} for seed in SEEDS],
    }  # fmt: skip


def make_run(root: Path, name: str, model: str, n_real: int, arms: dict[str, float]) -> Path:
    """A run whose arms reach so much in every measure, a hundredth more with the second seed."""
    run = root / name
    for arm, value in arms.items():
        for seed in SEEDS:
            own = value + seed / 100
            weighted = {"precision": own, "recall": own + 0.1, "f1": own + 0.2}
            tests = {"classify": {"weighted": weighted}, "segment": {"iou": own, "dice": own + 0.1}}
            for folder, test in tests.items():
                told = {"model": {"name": model}, "n_real": n_real, "test": test}
                write_json(run / folder / arm / f"seed{seed}" / "metrics.json", told)
    found = [compared(arm, 0.05, 0.0001) for arm in arms if arm != "original"]
    task = {
        "arms": dict.fromkeys(arms), "metric": "Dice", "confidence": 0.95,
        "comparisons": {"control": found[:1], "original": found},
        "per_seed": [{"seed": seed} for seed in SEEDS],
    }  # fmt: skip
    write_json(run / "verdict.json", {"tasks": {"classification": task, "segmentation": task}})
    return run


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    arms = {"original": 0.5, "duplicates": 0.52, "synthetic": 0.6}
    few = {"original": 0.4, "synthetic": 0.45}
    return [
        make_run(tmp_path, "a", "vgg16", 2500, arms),
        make_run(tmp_path, "b", "vgg16", 1000, few),
    ]


def rows(table: str) -> dict[str, list[str]]:
    cells = [line.strip("| ").split(" | ") for line in table.splitlines()]
    return {first: others for first, *others in cells}


def test_table_2_has_all_arms_in_rows_and_networks_under_each_measure(runs):
    found = rows(table_2(columns_of(runs, "classification")))
    assert list(found) == ["trained on", "---", "original", "duplicates", "synthetic"]
    assert found["trained on"][:3] == [
        "precision, weighted: vgg16, 2500 real", "precision, weighted: vgg16, 1000 real",
        "recall, weighted: vgg16, 2500 real",
    ]  # fmt: skip
    # Mean of .60 and .61; sample sd .01 / sqrt(2).
    assert found["synthetic"][0] == "0.605 ± 0.007"
    assert found["synthetic"][4] == "0.805 ± 0.007"
    assert found["synthetic"][6] == "+0.050 [0.030, 0.070], p < 0.001"
    assert found["duplicates"][1] == found["original"][6] == "–"


def test_table_3_has_both_scales_side_by_side(runs):
    found = rows(table_3(columns_of(runs, "segmentation")))
    assert found["trained on"] == [
        "IoU/Dice: vgg16, 2500 real", "Dice over original [95 %]",
        "IoU/Dice: vgg16, 1000 real", "Dice over original [95 %]",
    ]  # fmt: skip
    assert [found["original"][k] for k in (0, 2)] == ["0.505/0.605", "0.405/0.505"]
    assert found["duplicates"][2:] == ["–", "–"]


def test_runs_that_look_the_same_are_told_apart_by_name(runs, tmp_path):
    again = make_run(tmp_path, "c", "vgg16", 1000, {"original": 0.4, "synthetic": 0.45})
    titles = [each.title for each in columns_of([*runs, again], "segmentation")]
    assert titles == ["vgg16, 2500 real", "vgg16, 1000 real, b", "vgg16, 1000 real, c"]


def test_table_1_has_every_set_with_its_numbers_and_floor(runs):
    measure = {"value": 8.96, "interval": [8, 10],
               "matched": {"n": 500, "synthetic": {"mean": 12}, "real": {"mean": 7}}}  # fmt: skip
    pairs = {
        "measures": {"MS-SSIM": {"real and synthetic": {"mean": 0.39, "interval": [0.3, 0.5]}}}
    }
    images = {"n_real": 1000, "n_synthetic": 900, "pairs": pairs,
              "spaces": {"inception": {"measures": {"FID": measure}}}}  # fmt: skip
    write_json(runs[0] / "fidelity" / "fidelity.json", {"sets": {"images": images}})
    assert rows(table_1(runs)) == {
        "measure": ["a, 900 images against 1000"],
        "---": ["---"],
        "FID": ["8.960 [8.000, 10.000]; of 500: 12.000, real 7.000"],
        "MS-SSIM, real and synthetic": ["0.390 [0.300, 0.500]"],
    }
    assert table_1(runs[1:]) == "None of the runs has this."


def test_a_run_without_a_verdict_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"found no verdict.json in \['.*none'\]"):
        columns_of([tmp_path / "none"], "classification")
    write_json(tmp_path / "old" / "verdict.json", {"tasks": {"classification": {"arms": {}}}})
    with pytest.raises(ValueError, match="old/verdict.json: found no `comparisons` or"):
        columns_of([tmp_path / "old"], "classification")
