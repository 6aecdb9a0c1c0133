"""The ablation benchmark's counting, by hand, without any model."""

import numpy as np
import pytest

from benchmarks import ablations
from didgen.methods.protocol import Request, Sample

SIDE = 16
WANTED = np.zeros((SIDE, SIDE), bool)
WANTED[4:12, 4:12] = True


def sample(mask, failure="", seed=0):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 255, (SIDE, SIDE, 3)).astype(np.uint8)
    request = Request("a", "MEL", "", seed, WANTED)
    return Sample(request, image, mask, {"contrast": 0.5}, failure)


def test_failures_by_hand():
    empty = np.zeros_like(WANTED)
    made = [sample(WANTED), sample(np.roll(WANTED, 6, 0)), sample(empty, "no usable mask")]
    found = ablations.failures(made, None)
    assert found["n"] == 3 and found["unusable"] == pytest.approx(1 / 3)
    # Shifted by 6 of 8 rows: 16 of 112 pixels in common.
    assert found["unlike_condition"] == pytest.approx(2 / 3)
    assert found["layout_iou"] == pytest.approx((1 + 16 / 112) / 3)
    assert found["contrast"] == 0.5


def test_equal_images_have_no_diversity(monkeypatch):
    monkeypatch.setattr(ablations, "Lite0Features", lambda: lambda images: [images + 2])
    same = [sample(WANTED, seed=1)] * 3
    found = ablations.diversity([*same, *(sample(WANTED, seed=k) for k in range(3))], 3)
    assert found["per_mask"][0] == pytest.approx(0, abs=1e-12) and found["per_mask"][1] > 0


def test_figure_has_a_row_a_variant_and_mask():
    samples = [sample(WANTED)] * 4
    sheet = ablations.figure({"with": samples, "without": samples}, seeds=2)
    # Two masks, two variants; a condition and two images in a row.
    assert sheet.shape == (6 + 4 * (SIDE + 6 + 15), 6 + 3 * (SIDE + 6), 3)
