import json
import os
import signal

import numpy as np
import pandas as pd
import pytest

from didgen.captions import measure
from didgen.captions.attributes import Attributes
from didgen.captions.measure import ImageRow, MeasurementError, measure_file, measure_files
from didgen.data.images import read_image
from didgen.data.manifest import COLUMNS, write_manifest
from didgen.data.phantoms import cohort, render
from didgen.runtime.files import write_png
from didgen.stages import caption
from tests.captions.made_up import Words


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Nine phantoms in three manifests; every third has no mask, one has no label."""
    monkeypatch.setattr(caption, "_tokenizer", lambda backbone, revision=None: Words(77))
    for split, specs in zip(
        ("train", "val", "test"), np.array_split(cohort(9, seed=3), 3), strict=True
    ):
        rows = []
        for k, spec in enumerate(specs):
            drawn = render(spec, 64)
            write_png(tmp_path / "images" / f"{spec.id}.png", drawn.image)
            write_png(tmp_path / "masks" / f"{spec.id}.png", drawn.mask)
            row = dict.fromkeys(COLUMNS, "") | {
                "id": spec.id,
                "image": f"images/{spec.id}.png",
                "mask": "" if k == 0 else f"masks/{spec.id}.png",
                "label": "" if k == 2 else spec.label,
                "split": split,
                "width": 64,
                "height": 64,
            }
            rows.append(row)
        write_manifest(pd.DataFrame(rows), tmp_path / f"{split}.csv")
    paths = {split: tmp_path / f"{split}.csv" for split in ("train", "val", "test")}
    return caption.Config(**paths, backbone="tiny", out=tmp_path / "caption", workers=1)


def test_the_stage_writes_captions_statistics_and_config(config):
    caption.run(config)
    table = pd.read_csv(config.out / "captions.csv", dtype=str, keep_default_na=False)
    manifests = [pd.read_csv(getattr(config, name)) for name in ("train", "val", "test")]
    assert table["id"].tolist() == [name for frame in manifests for name in frame["id"]]
    assert list(table.columns) == [
        "id", "caption", "mask_source", *Attributes.model_fields, "captioner", "claims",
    ]  # fmt: skip
    assert set(table["captioner"]) == {"measure"}
    assert set(table["claims"]) == {""}
    measured = pd.read_csv(config.out / "measured.csv", dtype=str, keep_default_na=False)
    assert measured.equals(table.drop(columns=["caption", "captioner", "claims"]))
    assert set(table["mask_source"][[1, 2, 4, 5, 7, 8]]) == {"given"}
    assert set(table["mask_source"][[0, 3, 6]]) <= {"segmented", "whole image"}
    assert (table["diagnosis"][[2, 5, 8]] == "").all()
    assert "spot" in table["caption"][2]
    statistics = json.loads((config.out / "statistics.json").read_text())
    assert statistics["count"] == 9
    assert sum(statistics["mask_source"].values()) == 9
    assert sum(statistics["values"]["hair"].values()) == 9
    assert statistics["tokens"]["trimmed"] == 0
    assert statistics["captioner"] == {"measure": 9}
    assert statistics["diversity"]["count"] == 9
    assert "model" not in statistics
    assert json.loads((config.out / "audit.json").read_text()) == {
        "captioner": "measure",
        "count": 0,
    }
    assert json.loads((config.out / "config.json").read_text())["captioner"] == "measure"


def test_the_number_of_processes_does_not_change_the_rows(config, monkeypatch):
    alone = measure_files(caption.image_rows(config.train), 1)
    monkeypatch.setattr(measure, "POOL_FROM", 1)
    assert measure_files(caption.image_rows(config.train), 2) == alone


def test_read_captions_keeps_the_wanted_order(config):
    caption.run(config)
    ids = pd.read_csv(config.train)["id"].tolist()[::-1]
    captions = caption.read_captions(config.out / "captions.csv", ids)
    assert captions.index.tolist() == ids
    assert captions[ids[0]].endswith(".")


def test_read_captions_names_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match="run the caption stage"):
        caption.read_captions(tmp_path / "captions.csv", ["a"])
    path = tmp_path / "captions.csv"
    for row in ("", "b\n", "b,\n"):
        path.write_text(f"id,caption\na,A nevus.\n{row}")
        with pytest.raises(ValueError, match=r"no caption for 1 of 2 images \(b\)"):
            caption.read_captions(path, ["a", "b"])
    path.write_text("id,text\na,A spot.\n")
    with pytest.raises(ValueError, match="found columns id, text, expected also caption"):
        caption.read_captions(path, ["a"])
    path.write_text("id,caption\na,A spot.\na,A spot.\n")
    with pytest.raises(ValueError, match="1 ids stand twice, such as 'a'"):
        caption.read_captions(path, ["a"])


def test_an_unusable_image_is_named(tmp_path):
    write_png(tmp_path / "small.png", np.zeros((16, 16, 3), dtype=np.uint8))
    with pytest.raises(MeasurementError, match=r"small\.png.*at least 32x32"):
        measure_file(ImageRow("x", tmp_path / "small.png"))


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\x00", b'id,caption\na,"A spot', b"id,caption\na,b,c,d\n", b"\x89PNG\r\n"],
)
def test_what_is_no_table_of_captions_is_named(tmp_path, content):
    path = tmp_path / "captions.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="captions.csv: "):
        caption.read_captions(path, ["a"])


def kill(row):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_explained(config, monkeypatch):
    monkeypatch.setattr(measure, "POOL_FROM", 1)
    monkeypatch.setattr(measure, "measure_file", kill)
    with pytest.raises(ChildProcessError, match="was killed.*memory.*fewer than 2 workers"):
        measure_files(caption.image_rows(config.train), 2)


def test_masks_of_images_without_one_are_those_of_the_captions(config):
    images = [row for row in caption.image_rows(config.train)]
    image = read_image(images[0].image)
    mask = measure.segment_image(image)
    measured = measure.measure(image)
    assert measured.mask_source == "segmented" and mask.shape == image.shape[:2]
    assert mask.mean() == pytest.approx(measured.numbers["area_share"])
