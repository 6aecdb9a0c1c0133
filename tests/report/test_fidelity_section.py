"""The report on fidelity, comparisons and doses, from result files made by hand."""

import html
from pathlib import Path

import pytest
from fake_run import save_json

from didgen.report.page import render
from didgen.report.reading import BrokenResult
from didgen.report.sections import fidelity, verdict
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
