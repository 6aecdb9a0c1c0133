"""A run whose pairs are real lesions on other skin: from the training to the page."""

import json

import pandas as pd
import pytest
import torch

from didgen.data.images import read_mask
from didgen.data.manifest import read_manifest
from didgen.downstream import segmenters
from didgen.downstream.datasets import DatasetError, usable_rows
from didgen.settings.filter import Config as FilterConfig
from didgen.settings.filter import Settings as FilterSettings
from didgen.settings.pairs import RivalConfig
from didgen.settings.report import Config as ReportConfig
from didgen.settings.train import Config as TrainConfig
from didgen.stages import augment, filter, pairs, report, train

ANY = dict.fromkeys(name for name in FilterSettings.model_fields if name != "shown")


class LightIsSkin(torch.nn.Module):
    """Stands in for a trained segmenter."""

    def forward(self, images):
        return -images.mean(1, keepdim=True)


@pytest.fixture(scope="module")
def run_dir(mini_run, tmp_path_factory):
    """Everything that follows the captions, but networks."""
    root = tmp_path_factory.mktemp("runs") / "warp"
    place = root / "methods/warp"
    files = {"train": mini_run.train, "captions": mini_run.captions, "method": "warp"}
    train.run(TrainConfig(**files, out=place / "model", state=root / ".state"))
    shards = [place / f"pairs/{number}-of-2" for number in (1, 2)]
    for number, out in enumerate(shards, 1):
        made = {"model": place / "model", "count": 6, "batch_size": 2, "workers": 2}
        pairs.run(RivalConfig(**files, **made, shard=f"{number}/2", out=out))
    weights = root / "segmenter.safetensors"
    weights.write_bytes(b"weights")
    card = segmenters.SegmenterCard("efficientnet_lite0", (8,) * 5, 64, "original", 0, 9, 0.9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filter, "load_segmenter", lambda path: (LightIsSkin(), card))
        # Bounds are tested elsewhere: here all pairs but those that show no lesion stay.
        out = place / "filter"
        bounds = ANY | {"min_segmenter_iou": 0.01}
        filter.run(FilterConfig(pairs=shards, segmenter=weights, out=out, **bounds))
    scores = place / "filter/scores.csv"
    augment.run(augment.Config(pairs=shards, scores=scores, out=place / "augment"))
    report.run(ReportConfig(run_dir=root, out=root / "report/index.html"))
    return root


def test_pairs_have_exact_masks_of_two_parents_and_no_condition(run_dir, mini_run):
    real = read_manifest(mini_run.train).set_index("id")
    frame = read_manifest(run_dir / "methods/warp/pairs/1-of-2/metadata.csv")
    assert not {"condition", "layout_iou", "contrast"} & set(frame)
    for row in frame.itertuples():
        parents = row.parent_ids.split(";")
        assert row.label in set(real.loc[parents, "label"])
        mask = read_mask(run_dir / "methods/warp/pairs/1-of-2" / row.mask)
        assert mask.mean() == pytest.approx(float(row.area), abs=1e-4)


def test_the_augmented_set_teaches_masks_and_no_classes(run_dir):
    manifest = run_dir / "methods/warp/augment/metadata.csv"
    frame = read_manifest(manifest)
    kept = pd.read_csv(run_dir / "methods/warp/filter/kept.csv")
    summary = json.loads((run_dir / "methods/warp/filter/summary.json").read_text())
    assert len(frame) == len(kept) == summary["kept"]
    assert len(usable_rows(manifest, "mask")[0]) == len(frame)
    with pytest.raises(DatasetError, match="pairs count as such"):
        usable_rows(manifest, "label")


def test_the_page_says_what_the_masks_are_and_asks_for_no_backbone(run_dir):
    page = (run_dir / "report/index.html").read_text()
    assert "No layout was" in page and "mask of a pair is exact" in page
    assert "Nothing in this run is made with a fine-tuned backbone." in page
    assert "train, warp" in page and "Checkpoint of warp, SHA-256" in page
    for stage in ("finetune", "maps"):
        assert f"The stage {stage} left no config.json" not in page
    for word in ("condition mask", "layout IoU", "contrast of the map"):
        assert word not in page
