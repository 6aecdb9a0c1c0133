import json

import numpy as np
import pytest

from didgen.exports.coco import annotation
from didgen.stages import export
from tests.exports.conftest import MASKS
from tests.exports.test_outlines import MANY


def run(run_dir, out, **more):
    export.run(export.Config(format="coco", run_dir=run_dir, out=out, **more))
    return {path.stem: path for path in (out / "annotations").glob("*.json")}


def test_an_annotation_by_hand():
    mask = np.zeros((4, 5), bool)
    mask[1:3, 1:4] = True
    assert annotation(mask) == {
        "category_id": 1,
        "segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]],
        "area": 6,
        "bbox": [1, 1, 3, 2],
        "iscrowd": 0,
    }
    mask[:] = True
    mask[1, 2] = False
    assert annotation(mask)["segmentation"] == {"size": [4, 5], "counts": [0, 9, 1, 10]}


def test_masks_come_back(run_dir, tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    files = run(run_dir, tmp_path / "out", real=True)
    assert sorted(files) == ["test", "train", "val"]
    opened = coco.COCO(str(files["train"]))
    images = {image["file_name"]: image for image in opened.imgs.values()}
    assert sorted(images) == ["0012.png", "P_0.png", "P_1.png", "P_2.png"]
    for name, mask in zip(["P_0", "P_1", "P_2"], MASKS.values(), strict=True):
        image = images[f"{name}.png"]
        assert (image["height"], image["width"]) == mask().shape and "license" not in image
        (found,) = opened.imgToAnns[image["id"]]
        np.testing.assert_array_equal(opened.annToMask(found), mask())
        assert (tmp_path / "out/images/train" / image["file_name"]).is_file()
    licences = {entry["id"]: entry["name"] for entry in opened.dataset["licenses"]}
    assert licences[images["0012.png"]["license"]] == "CC0 1.0"


@pytest.mark.parametrize("mask", MANY)
def test_any_mask_comes_back_with_its_area_and_box(mask):
    tool = pytest.importorskip("pycocotools.mask")
    said = annotation(mask)
    own = said["segmentation"]
    lengths = tool.frPyObjects(own, *mask.shape)
    lengths = tool.merge(lengths) if isinstance(own, list) else lengths
    np.testing.assert_array_equal(tool.decode(lengths), mask)
    assert tool.area(lengths) == said["area"]
    assert tool.toBbox(lengths).tolist() == said["bbox"]


def test_by_default_there_is_train_alone(run_dir, tmp_path):
    files = run(run_dir, tmp_path / "out")
    assert sorted(files) == ["train"]
    assert len(json.loads(files["train"].read_text())["images"]) == 3
