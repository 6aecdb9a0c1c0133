"""Every source, prepared alone: its layout, the classes and tasks it can serve, its splits."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from didgen.data.classes import CLASSES
from didgen.data.manifest import SPLITS, check_groups, read_manifest
from didgen.data.sources.published import LAYOUTS
from didgen.data.splits import SplitError
from didgen.stages.data import Config, run
from tests.data.published_layouts import LESION, MAKERS, picture, write

BOTH = ("classification", "segmentation")
# Classes and tasks as docs/data.md names them; which splits are used; how many images there are
# with 8 of a diagnosis (of ISIC 2019 also 7 for test), and how many rows are left out.
PUBLISHED = {
    "ham10000": (tuple(CLASSES), BOTH, "grouped", 56, 0),
    "isic2019": (tuple(CLASSES), ("classification",), "official", 63, 17),
    "isic2020": (("MEL", "NV", "BKL"), ("classification",), "grouped", 40, 24),
    "ph2": (("MEL", "NV"), BOTH, "grouped", 24, 0),
    "bcn20000": (tuple(CLASSES), ("classification",), "grouped", 56, 9),
    "pad-ufes-20": (("MEL", "NV", "BCC", "AKIEC", "BKL"), ("classification",), "grouped", 40, 8),
}


def prepared(folder):
    frames = [read_manifest(folder / f"{split}.csv") for split in SPLITS]
    return pd.concat(frames), json.loads((folder / "summary.json").read_text())


def config(tmp_path, **values):
    return Config(
        **{"size": 32, "near_duplicates": False, "out": tmp_path / "out", "val_fraction": 0.2}
        | values
    )


def test_every_published_set_is_tried():
    assert set(PUBLISHED) == set(LAYOUTS) == set(MAKERS)


@pytest.mark.parametrize("source", PUBLISHED)
def test_a_published_set_is_prepared_alone(tmp_path, source):
    classes, tasks, used, n_images, n_left = PUBLISHED[source]
    MAKERS[source](tmp_path / "set", 8)
    run(config(tmp_path, source=source, folder=str(tmp_path / "set"), classes=classes, tasks=tasks))
    frame, told = prepared(tmp_path / "out")
    check_groups(frame, source)
    assert len(frame) == told["n_images"] == n_images
    assert told["n_source"] == n_images + n_left
    assert sum(told["left_out"].values()) == n_left
    assert set(frame["label"]) == set(classes)
    assert (frame["mask"] != "").any() == ("segmentation" in tasks)
    assert told["split_rule"]["used"] == used
    assert set(frame["split"]) == set(SPLITS)
    if source == "isic2019":
        assert frame.loc[frame["split"] == "test", "id"].str.startswith("ISIC_Te").all()
        assert told["split_rule"]["val_from_train"]
        assert told["split_rule"]["shares"]["val"]["actual"] == pytest.approx(0.2, abs=0.06)


@pytest.mark.parametrize("source", [name for name in PUBLISHED if PUBLISHED[name][1] != BOTH])
def test_a_set_without_masks_says_which_task_to_leave_out(tmp_path, source):
    MAKERS[source](tmp_path / "set", 8)
    values = {"source": source, "folder": str(tmp_path / "set"), "classes": PUBLISHED[source][0]}
    with pytest.raises(SplitError, match=r"0 masks in .* set data.tasks: \[classification\]"):
        run(config(tmp_path, **values))
    assert not (tmp_path / "out").exists()


def own_folder(folder, masks):
    for k in range(24):
        place = folder / ("MEL", "NV", "BCC")[k % 3]
        picture(place / f"i{k}.png")
        if masks:
            picture(place / f"i{k}_mask.png", LESION)
    return {"source": "folder", "folder": str(folder)}


def own_table(folder, masks):
    rows = [f"i{k},NV/i{k}.png,{'m/' * masks}{f'i{k}.png' * masks},{('MEL', 'NV', 'BCC')[k % 3]}"
            for k in range(24)]  # fmt: skip
    write(folder / "own.csv", "id,image,mask,label", *rows)
    for k in range(24):
        picture(folder / f"NV/i{k}.png")
        picture(folder / f"m/i{k}.png", LESION)
    return {"source": "table", "table": str(folder / "own.csv")}


@pytest.mark.parametrize("make", [own_folder, own_table])
@pytest.mark.parametrize("masks", [True, False])
def test_own_images_are_prepared_with_and_without_masks(tmp_path, make, masks):
    values = make(tmp_path / "clinic", masks) | {"classes": ("MEL", "NV", "BCC")}
    run(config(tmp_path, **values, tasks=BOTH if masks else ("classification",)))
    frame, told = prepared(tmp_path / "out")
    assert len(frame) == told["n_source"] == 24 and told["n_with_mask"] == 24 * masks
    assert told["split_rule"]["used"] == "grouped"


def test_masks_without_labels_serve_segmentation(tmp_path):
    for k in range(12):
        picture(tmp_path / f"clinic/i{k}.png")
        picture(tmp_path / f"clinic/i{k}_mask.png", LESION)
    values = {"source": "folder", "folder": str(tmp_path / "clinic")}
    run(config(tmp_path, **values, tasks=("segmentation",)))
    frame, told = prepared(tmp_path / "out")
    assert (frame["label"] == "").all() and told["n_with_mask"] == 12
    with pytest.raises(ValueError, match="data.classes asks for"):
        run(config(tmp_path, **values))


def test_an_unmasked_set_survives_images_of_all_one_color(tmp_path):
    # Flat images are no copies of each other by their look, but equal ones are exact copies.
    for k in range(24):
        path = tmp_path / "clinic" / ("MEL", "NV")[k % 2] / f"i{k}.png"
        picture(path, np.full((40, 40, 3), 10 * (k // 2), np.uint8))
        assert Image.open(path).size == (40, 40)
    values = {"source": "folder", "folder": str(tmp_path / "clinic"), "classes": ("MEL", "NV")}
    run(config(tmp_path, **values, tasks=("classification",), near_duplicates=True))
    frame, told = prepared(tmp_path / "out")
    assert told["n_clusters"] == 12 and (frame.groupby("cluster")["split"].nunique() == 1).all()
