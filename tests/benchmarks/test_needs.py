"""What a run needs: measurements of a card take the place of estimates, by hand."""

from dataclasses import asdict

import pytest

from benchmarks.gpu import Row
from benchmarks.needs import Need, measured
from didgen.settings.run import RunConfig

CONFIG = RunConfig.model_validate({
    "data": {"source": "isic2018", "size": 512},
    "finetune": {"backbone": "x", "steps": 20_000, "batch_size": 4, "precision": "bfloat16"},
    "images": {"per_class": 1000, "steps": 25, "batch_size": 8, "scheduler": "ddim"},
    "pairs": {"count": 2500, "steps": 50, "batch_size": 1, "scheduler": "ddim",
              "guide_every": 2, "reuse_prediction": True, "guided_fraction": 0.25},
})  # fmt: skip
NEEDS = [
    Need(stage, 20.0, 1, 1, 9.0, "counted") for stage in ("data", "finetune", "images", "pairs")
]


ROWS = [
    asdict(own)
    for own in (
        Row("finetuning", "bfloat16, batch 4", 20.0, "images/s"),
        Row("finetuning", "bfloat16, batch 4", 17.0, "GB at most"),
        Row("finetuning", "bfloat16, batch 16", 40.0, "images/s"),
        Row("sampling", "ddim 50, batch 1", 0.5, "images/s"),
        Row("sampling", "ddim 50, batch 4", 2.0, "images/s"),
        Row("sampling", "ddim 50, batch 16", None, "images/s"),
        Row("pairs", "guide_every 2, reuse_prediction true, batch 1", 1.2, "ratio"),
    )
]


def test_measurements_take_the_place_of_what_is_counted():
    data, finetune, images, pairs = measured(NEEDS, CONFIG, ROWS)
    assert data == NEEDS[0]
    assert finetune.hours == pytest.approx(20_000 * 4 / 20 / 3600)
    assert finetune.gpu_gb == pytest.approx(17 * 1.073741824 + 1)
    # Seven classes; batch 4 is the largest of those measured up to 8, and half the steps take half.
    assert images.hours == pytest.approx(7000 / 4 / 3600)
    assert images.how == "measured, batch 4"
    # A quarter of the steps guided costs half of what a half did.
    assert pairs.hours == pytest.approx(2500 / 0.5 * 1.1 / 3600)
    assert pairs.gpu_gb == 20.0


def test_what_was_not_measured_stays_as_counted():
    assert measured(NEEDS, CONFIG, []) == NEEDS
    smaller = CONFIG.model_copy(update={"data": CONFIG.data.model_copy(update={"size": 256})})
    assert measured(NEEDS, smaller, ROWS) == NEEDS
    lora = CONFIG.finetune.model_copy(update={"lora_rank": 64})
    assert measured(NEEDS, CONFIG.model_copy(update={"finetune": lora}), ROWS)[1] == NEEDS[1]
    without = [own for own in ROWS if own["part"] != "pairs"]
    assert measured(NEEDS, CONFIG, without)[3] == NEEDS[3]
