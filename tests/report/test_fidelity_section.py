"""The report on fidelity, comparisons and doses, from result files made by hand."""

import html
import json
from pathlib import Path

import pytest
from fake_run import save_json

from didgen.report.page import render
from didgen.report.reading import BrokenResult
from didgen.report.sections import fidelity, results, verdict
from didgen.report.sections.comparisons import dose_chart
from didgen.settings.report import Settings

MEASURE = {
    "value": 0.104,
    "interval": [0.089, 0.118],
    "matched": {
        "n": 72,
        "synthetic": {"mean": 0.103, "sd": 0.005},
        "real": {"mean": 0.001, "sd": 0.002},
    },
}
FIDELITY = {
    "reference": "test",
    "confidence": 0.95,
    "sets": {
        "images": {
            "n_real": 150,
            "n_synthetic": 140,
            "classes": {"MEL": 70, "DF": 70},
            "spaces": {
                "efficientnet-lite0": {
                    "network": "EfficientNet-Lite0",
                    "weights": "ImageNet",
                    "preprocessing": "squashed to 224x224 px",
                    "interval": "halves",
                    "measures": {"kernel distance": MEASURE, "recall": MEASURE},
                    "refused": {"Fréchet distance": "found 150 real, expected more than 1280"},
                }
            },
            "pairs": {
                "side": 256,
                "drawn": "of one class",
                "measures": {
                    "MS-SSIM": {"synthetic": {"mean": 0.4, "interval": [0.3, 0.5], "n_pairs": 60}}
                },
            },
        }
    },
}
SEEN = {"n": 25, "n_independent": 25, "share": 0.48, "low": 0.3, "high": 0.67}
LABELS = {
    "classes": {"MEL": {"synthetic": SEEN, "real": SEEN | {"share": 0.8, "low": 0.7, "high": 0.9}}},
    "mean": {"synthetic": 0.48, "real": 0.8},
    "model": {"name": "resnet10t", "weights": "none"},
    "folds": 3,
    "confidence": 0.95,
    "note": "",
}


def page_of(run_dir: Path, *sections) -> str:
    return html.unescape(render("demo", [part.section(run_dir, Settings()) for part in sections]))


@pytest.fixture
def judged_run(own_run: Path) -> Path:
    save_json(own_run / "fidelity" / "fidelity.json", FIDELITY)
    save_json(own_run / "label_fidelity" / "label_fidelity.json", LABELS)
    return own_run


def test_fidelity_is_told_with_size_floor_and_interval(judged_run):
    page = page_of(judged_run, verdict, fidelity)
    assert "0.104 [0.089, 0.118]" in page
    assert "real, 72 against 72" in page
    assert "140 synthetic images against 150 real images" in page
    assert "real test images, which the generator never saw" in page
    assert "squashed to 224x224 px" in page
    assert "kernel distance ↓" in page
    assert "recall ↑" in page
    assert "Fréchet distance: found 150 real, expected more than 1280." in page
    assert "0.400 [0.300, 0.500]" in page


def test_labels_stand_beside_real_images(judged_run):
    page = page_of(judged_run, verdict, fidelity)
    assert "0.480 [0.300, 0.670]" in page
    assert "0.800 [0.700, 0.900]" in page
    assert "resnet10t" in page


def test_what_was_not_measured_is_said(own_run):
    found = fidelity.section(own_run, Settings())
    assert found.content is None
    assert len(found.missing) == 2
    assert "there is no fidelity.json" in page_of(own_run, verdict, fidelity)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("fidelity", {"sets": []}, "one object a set"),
        ("fidelity", {"confidence": 0.95, "sets": {"images": {}}}, "n_real and n_synthetic"),
        ("label_fidelity", {"classes": {}}, "one object a class"),
        ("label_fidelity", {"classes": {"MEL": {"real": 1}}}, "a share with its interval"),
    ],
)
def test_broken_files_are_named(judged_run, name, value, words):
    save_json(judged_run / name / f"{name}.json", value)
    with pytest.raises(BrokenResult, match=words):
        fidelity.section(judged_run, Settings())


def comparison(arm: str, control: str, difference: float, answer: str) -> dict:
    return {
        "arm": arm, "control": control, "difference": difference,
        "interval": [difference - 0.02, difference + 0.02], "p": 0.04, "p_uncorrected": 0.0004,
        "n_corrected_for": 4, "effect": {"name": "Cohen's g", "value": 0.12},
        "other_tests": {"McNemar": 0.03}, "verdict": answer,
    }  # fmt: skip


@pytest.fixture
def many_arms(judged_run: Path) -> Path:
    path = judged_run / "verdict.json"
    told = json.loads(path.read_text())
    task = told["tasks"]["classification"]
    sizes = {"n_real": 40, "n_duplicates": 0, "val_score": 0.6}
    for arm, made in (("original", 0), ("synthetic", 40), ("synthetic-0.5x", 20)):
        own = task["arms"].setdefault(arm, dict(task["arms"]["synthetic"]))
        own |= sizes | {"n_synthetic": made, "synthetic_set": "synthetic" if made else ""}
    task["arms"]["duplicates"] = dict(task["arms"]["original"]) | {"n_duplicates": 40}
    task |= {"best_control": "duplicates", "best_control_by": "mean validation score"}
    task["comparisons"] = {
        "best control": [
            comparison("synthetic", "duplicates", 0.031, "helps"),
            comparison("synthetic-0.5x", "duplicates", -0.04, "hurts"),
        ],
        "original": [comparison("duplicates", "original", 0.001, "no evidence")],
        "every control": [comparison("synthetic", "original", 0.052, "helps")],
    }
    path.write_text(json.dumps(told))
    return judged_run


def test_every_comparison_is_printed_whatever_it_says(many_arms):
    page = page_of(many_arms, verdict)
    assert "+0.031 [0.011, 0.051]" in page
    assert "−0.040 [−0.060, −0.020]" in page
    for words in ("synthetic-0.5x against duplicates", "duplicates against original", "hurts"):
        assert words in page
    assert "p, Holm for 4" in page
    assert "chosen by its mean validation score, not by its test score" in page
    assert "how much is added" in page


def test_a_verdict_without_comparisons_is_still_drawn(own_run):
    page = page_of(own_run, verdict)
    assert "against original" not in page
    assert "how much is added" not in page


def test_broken_comparisons_are_named(many_arms):
    path = many_arms / "verdict.json"
    told = json.loads(path.read_text())
    del told["tasks"]["classification"]["comparisons"]["original"][0]["interval"]
    path.write_text(json.dumps(told))
    with pytest.raises(BrokenResult, match="without its interval or verdict"):
        verdict.section(many_arms, Settings())


def arm(dose: int, values: list[float], name: str = "synthetic", copies: int = 0) -> dict:
    made = {"n_real": 40, "n_synthetic": dose, "n_duplicates": copies, "per_seed": values}
    return made | {"synthetic_set": name if dose else ""}


def test_doses_are_drawn_in_rising_order_with_each_seed():
    arms = {
        "original": arm(0, [0.5, 0.6]),
        "synthetic-2x": arm(80, [0.7, 0.8]),
        "synthetic": arm(40, [0.6, 0.7]),
        "duplicates": arm(0, [0.5, 0.5], copies=40),
        "prefix": arm(40, [0.5, 0.5], "prefix"),
    }
    chart = dose_chart("k", "t", "Dice", arms)
    assert [name for name, _ in chart.legend] == ["synthetic", "duplicates"]
    assert "synthetic from 0.55 to 0.75" in chart.svg
    # Two seeds and the mean of each line.
    assert chart.svg.count("<polyline") == 6
    assert dose_chart("k", "t", "Dice", {k: arms[k] for k in ("original", "synthetic")}) is None


def test_more_than_two_arms_stand_in_rows(own_run):
    import shutil

    shutil.copytree(own_run / "classify" / "original", own_run / "classify" / "duplicates")
    for seed in range(3):
        path = own_run / "classify" / "duplicates" / f"seed{seed}" / "metrics.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"arm": "duplicates"}))
    told = json.loads((own_run / "verdict" / "config.json").read_text())
    save_json(own_run / "verdict" / "config.json", told | {"classify_arms": None})
    entry = results.section(own_run, Settings()).content["tasks"][0]
    assert [row.heading for row in entry["tables"][0].rows] == [
        "original",
        "duplicates",
        "synthetic",
    ]
    assert "balanced accuracy" in entry["tables"][0].columns
    # Of each class: classes in rows, arms in columns, no differences.
    assert entry["tables"][1].columns == ("original", "duplicates", "synthetic")
