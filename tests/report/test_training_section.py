"""The training section: what validation during the fine-tuning saw."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from didgen.report.page import Section, render
from didgen.report.reading import BrokenResult
from didgen.report.sections import training
from didgen.runtime.files import write_png

# The page takes its headline from its first section.
FIRST = Section("verdict", "Verdict", None, ("no verdict",))


@dataclass(frozen=True)
class Options:
    samples_per_class: int = 1
    pairs: int = 1
    panels: int = 1
    picture_side: int = 32
    picture_quality: int = 80


@pytest.fixture
def run_dir(tmp_path):
    folder = tmp_path / "finetune"
    folder.mkdir()
    steps = pd.DataFrame({"step": [1, 2, 3], "loss": [0.3, 0.2, 0.1]})
    steps.to_csv(folder / "training.csv", index=False)
    return tmp_path


def watch(folder):
    rows = {"step": [0, 2, 3], "loss_rec_100": [0.5, 0.4, 0.3], "loss_rec_700": [0.1, 0.1, 0.1],
            "loss_attn": [0.3, 0.2, 0.1], "iou_lesion": [0.1, 0.5, 0.6]}  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "validation.csv", index=False)
    for step in (0, 3):
        pixels = np.full((40, 80, 3), 80 * step, np.uint8)
        write_png(folder / "validation" / f"step-{step:07d}.png", pixels)


def test_validation_is_charted_and_the_last_look_shown(run_dir):
    watch(run_dir / "finetune")
    found = training.section(run_dir, Options())
    charts = found.content["validation"]
    assert [chart.title.partition(":")[0] for chart in charts] == ["Validation"] * 3
    assert "little from 0.5 to 0.3; much noise from 0.1 to 0.1" in charts[0].svg
    assert "&lt;lesion&gt; from 0.1 to 0.6" in charts[2].svg
    assert found.content["picture"].alt.startswith("After step 3")
    page = render("r", [FIRST, found])
    assert "Validation during the fine-tuning" in page and page.count("data:image/jpeg") == 1


def test_a_training_that_nobody_watched_has_no_such_part(run_dir):
    found = training.section(run_dir, Options())
    assert found.content["validation"] == [] and found.content["picture"] is None
    assert "Validation during" not in render("r", [FIRST, found])


def test_a_damaged_validation_table_is_named(run_dir):
    (run_dir / "finetune/validation.csv").write_text("")
    with pytest.raises(BrokenResult, match=r"validation\.csv"):
        training.section(run_dir, Options())
