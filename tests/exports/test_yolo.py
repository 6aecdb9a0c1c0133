import cv2
import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.ndimage import binary_fill_holes

from didgen.exports.yolo import label
from didgen.stages import export
from tests.exports.conftest import MASKS
from tests.exports.test_outlines import MANY


def run(run_dir, out, **more):
    export.run(export.Config(format="yolo", run_dir=run_dir, out=out, **more))
    return out


def read_back(text, shape):
    """The mask of a label file, as the common trainer draws it: rounded down, filled."""
    mask = np.zeros(shape, np.uint8)
    for line in text.splitlines():
        kind, *numbers = line.split()
        points = np.array(numbers, np.float32).reshape(-1, 2)
        assert kind == "0" and len(points) >= 3 and 0 < points.min() < points.max() < 1
        cv2.fillPoly(mask, [(points * shape[::-1]).astype(np.int32)], 1)
    return mask > 0


@pytest.mark.parametrize("mask", MANY)
def test_a_label_draws_its_mask_with_holes_filled(mask):
    np.testing.assert_array_equal(read_back(label(mask), mask.shape), binary_fill_holes(mask))


def test_a_large_mask_comes_back_too():
    y, x = np.mgrid[:451, :603]
    mask = ((y - 200) / 150) ** 2 + ((x - 310) / 270.5) ** 2 < 1
    np.testing.assert_array_equal(read_back(label(mask), mask.shape), mask)


def test_a_label_by_hand():
    mask = np.zeros((4, 5), bool)
    mask[1:3, 1:4] = True
    corners = {(0.3, 0.375), (0.3, 0.625), (0.7, 0.375), (0.7, 0.625)}
    numbers = list(map(float, label(mask).split()))
    assert set(zip(numbers[1::2], numbers[2::2], strict=True)) == corners


def test_files_lie_where_the_trainer_looks_for_them(run_dir, tmp_path):
    out = run(run_dir, tmp_path / "out", real=True)
    described = yaml.safe_load((out / "data.yaml").read_text())
    assert described["names"] == {0: "lesion"}
    found = {}
    for split in ("train", "val", "test"):
        for image in sorted((out / described[split]).iterdir()):
            text = (out / f"labels/{split}/{image.stem}.txt").read_text()
            found[image.stem] = read_back(text, (16, 24))
    assert sorted(found) == ["0012", "0014", "0015", "P_0", "P_1", "P_2"]
    np.testing.assert_array_equal(found["P_1"], MASKS["two_parts"]())
    np.testing.assert_array_equal(found["0014"], MASKS["two_parts"]())
    holes = pd.read_csv(out / "filled_holes.csv", dtype={"id": str}).set_index("id")["pixels"]
    assert holes.to_dict() == {"P_2": 6, "0015": 6}


def test_by_default_there_is_train_alone(run_dir, tmp_path):
    out = run(run_dir, tmp_path / "out")
    assert [path.name for path in (out / "images").iterdir()] == ["train"]
    assert set(yaml.safe_load((out / "data.yaml").read_text())) == {"train", "val", "names"}
