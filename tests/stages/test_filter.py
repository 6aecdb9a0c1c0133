"""The filter on made pairs: who is kept, why not, and what the augmented set takes."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from didgen.data.manifest import SYNTHETIC_COLUMNS, read_manifest, write_manifest
from didgen.downstream import segmenters
from didgen.metrics.masks import area_fraction, border_contact, pale_outside
from didgen.metrics.segmentation import iou
from didgen.runtime.files import sha256_file, write_csv, write_png
from didgen.settings.filter import Settings as FilterSettings
from didgen.stages import augment, filter

SIDE = 32


class DarkIsLesion(torch.nn.Module):
    """Stands in for a trained segmenter: a pixel is lesion where it is dark."""

    def forward(self, images):
        return -images.mean(1, keepdim=True)


@pytest.fixture
def segmenter(monkeypatch):
    """Pretend that some weights are on disk; returns how to pretend another arm."""
    told = {"arm": "original"}

    def load(path: Path):
        channels = (8, 8, 8, 8, 8)
        card = segmenters.SegmenterCard(
            "efficientnet_lite0", channels, SIDE, told["arm"], 0, 9, 0.9
        )
        return DarkIsLesion(), card

    monkeypatch.setattr(filter, "load_segmenter", load)
    return told


def disc(row, column, radius):
    y, x = np.mgrid[:SIDE, :SIDE]
    return (y - row) ** 2 + (x - column) ** 2 < radius**2


def photograph(lesion, glow=None):
    image = np.full((SIDE, SIDE, 3), 180, np.uint8)
    image[lesion] = 50
    if glow is not None:
        image[glow & ~lesion] = 250
    return image


GOOD = disc(16, 16, 8)
GLOW = disc(6, 26, 6)
# name -> image, annotated mask, condition, contrast.
PAIRS = {
    "good": (photograph(GOOD), GOOD, GOOD, 0.95),
    "good_2": (photograph(disc(14, 18, 7)), disc(14, 18, 7), disc(15, 17, 7), 0.9),
    "elsewhere": (photograph(GOOD), GOOD, disc(8, 8, 5), 0.9),
    # The mask follows its condition, but the picture shows its lesion elsewhere.
    "disagree": (photograph(disc(26, 5, 4)), GOOD, GOOD, 0.95),
    "glowing": (photograph(GOOD, GLOW), GOOD, GOOD, 0.95),
    "unclear": (photograph(GOOD), GOOD, GOOD, 0.3),
    "dot": (photograph(disc(3, 3, 1)), disc(3, 3, 1), disc(3, 3, 1), 0.9),
}


def pair_folder(folder, names):
    rows = []
    for name in names:
        image, mask, condition, contrast = PAIRS[name]
        files = {kind: f"{kind}s/{name}.png" for kind in ("image", "mask", "condition")}
        for kind, pixels in (("image", image), ("mask", mask), ("condition", condition)):
            write_png(folder / files[kind], pixels)
        row = {"id": name, "label": "MEL", "split": "train", "lesion_id": "", "patient_id": ""}
        row |= {"source": "synthetic", "width": SIDE, "height": SIDE, **files}
        row |= dict.fromkeys(SYNTHETIC_COLUMNS, "x") | {"seed": 1}
        row["sha256"] = sha256_file(folder / files["image"])
        row |= {"layout_iou": float(iou(mask, condition)), "contrast": contrast}
        row |= {"area": area_fraction(mask), "border_contact": border_contact(mask)}
        rows.append(row | {"pale_outside": pale_outside(image, mask)})
    write_manifest(pd.DataFrame(rows), folder / "metadata.csv")
    return folder


@pytest.fixture
def folders(tmp_path):
    names = list(PAIRS)
    return tuple(pair_folder(tmp_path / f"pairs/{k}-of-2", names[k - 1 :: 2]) for k in (1, 2))


def run_filter(folders, out, **settings):
    weights = out.with_name("segmenter.safetensors")
    weights.write_bytes(b"weights")
    filter.run(filter.Config(pairs=folders, segmenter=weights, out=out, **settings))
    return json.loads((out / "summary.json").read_text())


def test_every_fault_is_rejected_for_its_reason(folders, segmenter, tmp_path):
    out = tmp_path / "filter"
    summary = run_filter(folders, out)
    table = pd.read_csv(out / "scores.csv", keep_default_na=False).set_index("id")
    assert table["reasons"].to_dict() == {
        "good": "",
        "good_2": "",
        "elsewhere": "mask unlike condition",
        "disagree": "mask unlike segmenter's",
        "glowing": "pale glow",
        "unclear": "unclear map",
        "dot": "too small",
    }
    assert (table["kept"] == "yes").to_dict() == (table["reasons"] == "").to_dict()
    assert table.loc["disagree", "segmenter_iou"] == 0 and table.loc["good", "segmenter_iou"] == 1
    assert (summary["n"], summary["kept"], summary["rejected"]) == (7, 2, 5)
    assert summary["by_reason"]["pale glow"] == summary["by_reason_alone"]["pale glow"] == 1
    assert summary["segmenter"]["arm"] == "original"
    assert pd.read_csv(out / "kept.csv")["id"].tolist() == ["good", "good_2"]
    rejected = pd.read_csv(out / "rejected.csv")
    assert len(rejected) == 5 and rejected["reasons"].notna().all()
    assert (out / "rejected.png").is_file()


def test_curves_measure_by_another_score_than_they_reject_by(folders, segmenter, tmp_path):
    run_filter(folders, tmp_path / "filter")
    found = json.loads((tmp_path / "filter/curve.json").read_text())
    assert all(curve["score"] != curve["quality"] for curve in found["curves"])
    first = found["curves"][0]
    table = pd.read_csv(tmp_path / "filter/scores.csv")
    assert first["n"] == 7
    assert first["points"][0]["quality"] == pytest.approx(table["segmenter_iou"].mean())
    # All bounds but the segmenter's leave good, good_2 and the pair that only it rejects.
    assert found["without_segmenter"] == {
        "kept": 3, "segmenter_iou": pytest.approx(2 / 3, abs=1e-3)
    }  # fmt: skip


def test_bounds_can_be_switched_off(folders, segmenter, tmp_path):
    bounds = [name for name in FilterSettings.model_fields if name != "shown"]
    summary = run_filter(folders, tmp_path / "filter", **dict.fromkeys(bounds))
    assert summary["kept"] == 7 and summary["by_reason"] == {}
    assert not (tmp_path / "filter/rejected.png").exists()


def test_a_segmenter_that_saw_synthetic_images_is_refused(folders, segmenter, tmp_path):
    segmenter["arm"] = "synthetic"
    with pytest.raises(ValueError, match="expected arm 'original'"):
        run_filter(folders, tmp_path / "filter")
    assert not (tmp_path / "filter").exists()


def test_rejecting_everything_is_an_error_that_says_what_to_do(folders, segmenter, tmp_path):
    out = tmp_path / "filter"
    counts = r"too large 6, .*unclear map 1.*filter, then lower the thresholds"
    with pytest.raises(ValueError, match=rf"all 7 pairs were rejected \(by {counts}"):
        run_filter(folders, out, max_area=0.006)
    assert (out / "rejected.png").is_file() and len(pd.read_csv(out / "rejected.csv")) == 7
    config = augment.Config(pairs=folders, scores=out / "scores.csv", out=tmp_path / "augment")
    with pytest.raises(ValueError, match="all 7 pairs were rejected"):
        augment.run(config)


def test_bounds_that_keep_nothing_are_refused():
    with pytest.raises(ValueError, match="lies above max_area"):
        FilterSettings(min_area=0.5, max_area=0.4)


def failed_pairs(folder, failures):
    folder.mkdir(parents=True)
    (folder / "metadata.csv").write_text("id,image\n")
    rows = [f"PAIR_{number},{number},{text}\n" for number, text in enumerate(failures)]
    (folder / "failed.csv").write_text("id,seed,failure\n" + "".join(rows))
    return folder


def test_when_every_pair_failed_the_counts_and_the_lists_are_named(segmenter, tmp_path):
    first = failed_pairs(tmp_path / "1-of-2", ["no usable mask: none", "diverged: nan at step 3"])
    second = failed_pairs(tmp_path / "2-of-2", ["no usable mask: all"])
    told = (
        r"all 3 pairs failed \(no usable mask 2, diverged 1\); they are listed in "
        rf"{first}/failed.csv, {second}/failed.csv"
    )
    with pytest.raises(ValueError, match=told):
        run_filter((first, second), tmp_path / "filter")
    with pytest.raises(ValueError, match=told):
        augment.run(augment.Config(pairs=(first, second), out=tmp_path / "augment"))


def test_a_shard_whose_pairs_all_failed_does_not_stop_the_others(folders, segmenter, tmp_path):
    empty = failed_pairs(tmp_path / "3-of-3", ["no usable mask: none"])
    assert run_filter((*folders, empty), tmp_path / "filter")["n"] == 7
    config = augment.Config(
        pairs=(*folders, empty), scores=tmp_path / "filter/scores.csv", out=tmp_path / "augment"
    )
    augment.run(config)
    assert len(read_manifest(tmp_path / "augment/metadata.csv")) == 2


def of_warp(folder):
    """Make the pairs of a folder ones that follow no condition and whose mask was not read."""
    table = folder / "metadata.csv"
    frame = read_manifest(table).drop(columns=["condition", "layout_iou", "contrast"])
    write_manifest(frame.assign(method="warp"), table)


def test_pairs_whose_mask_is_the_condition_are_filtered_by_what_they_have(
    folders, segmenter, tmp_path
):
    for folder in folders:
        frame = read_manifest(folder / "metadata.csv").drop(columns=["contrast"])
        frame = frame.assign(method="controlnet", layout_iou="1.0")
        write_manifest(frame, folder / "metadata.csv")
    summary = run_filter(folders, tmp_path / "filter")
    assert summary["means"]["all"]["layout_iou"] == 1.0
    assert summary["by_reason"]["mask unlike condition"] == 0
    assert "unclear map" not in summary["thresholds"]


def test_bounds_on_scores_that_a_method_does_not_have_are_left_out(folders, segmenter, tmp_path):
    for folder in folders:
        of_warp(folder)
    out = tmp_path / "filter"
    summary = run_filter(folders, out)
    table = pd.read_csv(out / "scores.csv", keep_default_na=False).set_index("id")
    # Those that are rejected by scores which any pair has.
    rejected = table.loc[table["kept"] == "no", "reasons"].to_dict()
    assert rejected == {
        "disagree": "mask unlike segmenter's", "glowing": "pale glow", "dot": "too small"
    }  # fmt: skip
    assert not {"layout_iou", "contrast"} & ({*table} | set(summary["means"]["all"]))
    assert not {"mask unlike condition", "unclear map"} & set(summary["thresholds"])
    assert json.loads((out / "curve.json").read_text())["curves"] == []
    assert (out / "rejected.png").is_file()
    config = augment.Config(pairs=folders, scores=out / "scores.csv", out=tmp_path / "augment")
    augment.run(config)
    assert len(read_manifest(tmp_path / "augment/metadata.csv")) == 4


def test_pairs_of_two_methods_are_refused(folders, segmenter, tmp_path):
    of_warp(folders[1])
    with pytest.raises(ValueError, match="found pairs of warp and x, expected those of one method"):
        run_filter(folders, tmp_path / "filter")


def test_pairs_without_scores_are_refused(folders, segmenter, tmp_path):
    table = folders[0] / "metadata.csv"
    write_manifest(read_manifest(table).drop(columns="pale_outside"), table)
    with pytest.raises(ValueError, match="pale_outside; run the pairs stage again"):
        run_filter(folders, tmp_path / "filter")


def test_the_augmented_set_takes_the_kept_pairs_alone(folders, segmenter, tmp_path):
    out, scores = tmp_path / "augment", tmp_path / "filter/scores.csv"
    config = augment.Config(pairs=folders, scores=scores, out=out)
    with pytest.raises(ValueError, match="run the filter stage first"):
        augment.run(config)
    run_filter(folders, tmp_path / "filter")
    augment.run(config)
    frame = read_manifest(out / "metadata.csv")
    assert frame["id"].tolist() == ["good", "good_2"]
    assert frame["segmenter_iou"].astype(float).tolist()[0] == 1
    assert sorted(path.name for path in (out / "images").iterdir()) == ["good.png", "good_2.png"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table.drop(columns="sha256"), "expected also sha256"),
        (lambda table: table.drop(columns="id"), "expected also id"),
        (lambda table: table.drop(columns="kept"), "expected also kept"),
        (lambda table: pd.concat([table, table[:1]]), "1 ids stand twice"),
    ],
)
def test_scores_that_no_filter_writes_are_named(folders, segmenter, tmp_path, change, words):
    run_filter(folders, tmp_path / "filter")
    scores = tmp_path / "filter/scores.csv"
    write_csv(scores, change(pd.read_csv(scores)))
    with pytest.raises(ValueError, match=f"scores.csv: .*{words}.*run the filter stage again"):
        augment.run(augment.Config(pairs=folders, scores=scores, out=tmp_path / "augment"))


def test_pairs_made_anew_since_are_refused(folders, segmenter, tmp_path):
    run_filter(folders, tmp_path / "filter")
    table = folders[0] / "metadata.csv"
    frame = read_manifest(table)
    write_manifest(frame.assign(sha256="0" * 64), table)
    scores = tmp_path / "filter/scores.csv"
    with pytest.raises(ValueError, match="run the filter stage again"):
        augment.run(augment.Config(pairs=folders, scores=scores, out=tmp_path / "augment"))
