"""Phantoms for the caption stage, its config for them, and what it wrote."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from didgen.captions.llm_captions import response_schema
from didgen.data.manifest import COLUMNS, write_manifest
from didgen.data.phantoms import cohort, render
from didgen.runtime.files import write_png
from didgen.stages import caption
from tests.captions.made_up import Words

NODES = response_schema()["properties"]
NOTHING = {k: [] if node.get("type") == "array" else None for k, node in NODES.items()} | {
    "hair": "none"
}


@pytest.fixture(scope="module", name="drawn_once")
def phantoms_drawn_once(tmp_path_factory):
    """Nine phantoms in three manifests."""
    folder = tmp_path_factory.mktemp("drawn")
    for split, specs in zip(
        ("train", "val", "test"), np.array_split(cohort(9, seed=3), 3), strict=True
    ):
        rows = []
        for spec in specs:
            drawn = render(spec, 64)
            write_png(folder / "images" / f"{spec.id}.png", drawn.image)
            write_png(folder / "masks" / f"{spec.id}.png", drawn.mask)
            rows.append(
                dict.fromkeys(COLUMNS, "")
                | {"id": spec.id, "image": f"images/{spec.id}.png", "split": split}
                | {"mask": f"masks/{spec.id}.png", "label": spec.label, "width": 64, "height": 64}
            )
        write_manifest(pd.DataFrame(rows), folder / f"{split}.csv")
    return folder


@pytest.fixture(name="manifests")
def phantom_manifests(drawn_once, tmp_path):
    """The phantoms' manifests, in a folder of the test's own."""
    shutil.copytree(drawn_once, tmp_path, dirs_exist_ok=True)
    return {split: tmp_path / f"{split}.csv" for split in ("train", "val", "test")}


@pytest.fixture(name="configure")
def caption_config(manifests, tmp_path, monkeypatch):
    """Make the stage's config; the tokenizer counts words."""
    monkeypatch.setattr(caption, "_tokenizer", lambda backbone, revision=None: Words(77))

    def make(**settings):
        return caption.Config(
            **manifests, backbone="tiny", out=tmp_path / "caption", state=tmp_path / "state",
            workers=1, **settings,
        )  # fmt: skip

    return make


def outputs(config):
    table = pd.read_csv(config.out / "captions.csv", dtype=str, keep_default_na=False)
    statistics = json.loads((config.out / "statistics.json").read_text())
    return table, statistics, json.loads((config.out / "audit.json").read_text())
