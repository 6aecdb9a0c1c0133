"""Submissions, and what the official scorer says of them where it is on the PATH."""

import io
import json
import shutil
import subprocess
import zipfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from torch import nn

from didgen.data.manifest import read_manifest, write_manifest
from didgen.downstream.segmenters import SegmenterCard
from didgen.runtime.files import write_csv, write_json, write_png
from didgen.stages import export
from didgen.stages.classify import predictions

CODES = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]


def score(*arguments):
    """The official scorer's JSON; skips the test where there is no scorer."""
    scorer = shutil.which("isic-challenge-scoring")
    if scorer is None:
        pytest.skip("no isic-challenge-scoring on the PATH; it needs Python 3.13")
    done = subprocess.run([scorer, "-o", "json", *map(str, arguments)], capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def classified(tmp_path, probabilities, predicted, classes=CODES):
    """A run in which arm `original` said this of images of the archive, and its submission."""
    table = pd.DataFrame(probabilities, columns=[f"p_{code}" for code in classes])
    table.insert(0, "id", [f"ISIC_{k:07d}" for k in range(len(table))])
    table.insert(1, "prediction", predicted)
    write_csv(tmp_path / "run/classify/original/seed3/predictions.csv", table)
    out = tmp_path / "out"
    export.run(export.Config(format="isic_task3", run_dir=tmp_path / "run", arm="original",
                             seed=3, out=out))  # fmt: skip
    return out / "submission.csv"


def truth(path, labels):
    table = pd.DataFrame({"image": [f"ISIC_{k:07d}" for k in range(len(labels))]})
    for code in CODES:
        table[code] = [float(label == code) for label in labels]
    table.to_csv(path, index=False)
    return path


def test_seven_columns_of_numbers_with_a_point(tmp_path):
    path = classified(tmp_path, [[1.0, 0.0], [1.5e-9, 1 - 1.5e-9]], ["MEL", "NV"], CODES[:2])
    lines = [line.split(",") for line in path.read_text().splitlines()]
    assert lines[0] == ["image", *CODES]
    assert lines[1] == ["ISIC_0000000", "1.0", *["0.0"] * 6]
    assert lines[2] == ["ISIC_0000001", "0.0000000015", "0.9999999985", *["0.0"] * 5]


def test_a_tie_is_decided_for_the_predicted_class(tmp_path):
    half = [0.5, 0.5, 0, 0, 0, 0, 0]
    table = pd.read_csv(classified(tmp_path, [half, half], ["MEL", "NV"])).set_index("image")
    assert table.idxmax(axis=1).tolist() == ["MEL", "NV"]
    assert (table.eq(table.max(axis=1), axis=0).sum(axis=1) == 1).all()
    np.testing.assert_allclose(table.to_numpy(), [half, half], atol=1e-11)


def test_the_scorer_agrees(tmp_path):
    predicted = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC", "NV"]
    numbers = np.full((8, 7), 0.05)
    for k, code in enumerate(predicted):
        numbers[k, CODES.index(code)] = 0.7
    # Ties, which the scorer calls wrong where they are left as they are.
    numbers[1] = numbers[7] = [0.5, 0.5, 0, 0, 0, 0, 0]
    path = classified(tmp_path, numbers, predicted)
    labels = [*CODES, "MEL"]
    said = score("classification", truth(tmp_path / "truth.csv", labels), path)
    # Six classes right, and of MEL one of two.
    assert said["overall"] == pytest.approx(6.5 / 7)


@pytest.mark.parametrize(
    ("numbers", "predicted", "fault"),
    [
        ([0.9, 0.1], "NV", "not the likeliest class"),
        ([1.2, 0.1], "MEL", "not all numbers from 0 to 1"),
        ([0.9, 0.1], "DF", "found classes"),
        ([0.9, 0.1], "SCC", "found classes"),
    ],
)
def test_a_table_that_says_something_else_is_refused(tmp_path, numbers, predicted, fault):
    with pytest.raises(ValueError, match=fault):
        classified(tmp_path, [numbers], [predicted], CODES[:2])
    assert not (tmp_path / "out").exists()


def test_predictions_have_every_digit():
    class Two:
        def identity(self):
            return pd.DataFrame({"id": ["a", "b"]})

        def true_classes(self):
            return np.array([0, 1])

    given = np.array([[0.12345678901234567, 0.8765432109876543], [1e-9, 1 - 1e-9]])
    table = predictions(Two(), given, ["MEL", "NV"])
    np.testing.assert_array_equal(table[["p_MEL", "p_NV"]].to_numpy(), given)


class Red(nn.Module):
    """Lesion is where red exceeds green."""

    def forward(self, images):
        return images[:, :1] - images[:, 1:2]


@pytest.fixture
def segmented(tmp_path, monkeypatch):
    """A run with two test photographs of 48 x 36 px, squashed to 32: the left half, the top."""
    run = tmp_path / "run"
    rows = []
    for name, part in (("ISIC_0000012", np.s_[:, :16]), ("ISIC_0000013", np.s_[:8])):
        image = np.full((32, 32, 3), 200, np.uint8)
        image[part] = (200, 50, 50)
        mask = np.zeros((32, 32), bool)
        mask[part] = True
        row = {"id": name, "image": f"images/{name}.png", "mask": f"masks/{name}.png"}
        row |= dict.fromkeys(("label", "lesion_id", "patient_id", "sha256"), "")
        row |= {"split": "test", "source": "ISIC 2018 Task 1", "width": 32, "height": 32}
        rows.append(row | {"original_width": 48, "original_height": 36})
        write_png(run / "data" / row["image"], image)
        write_png(run / "data" / row["mask"], mask)
    write_manifest(pd.DataFrame(rows), run / "data/test.csv")
    write_json(run / "data/config.json", {"fit": "squash"})
    network = run / "segment/original/seed0"
    write_json(network / "metrics.json", {"training": {"precision": "float32"}})
    card = SegmenterCard("", (), 32, "original", 0, 1, 1.0)
    monkeypatch.setattr(export, "load_segmenter", lambda path: (Red(), card))
    return run


def submit(run, out):
    export.run(export.Config(format="isic_task1", run_dir=run, arm="original", out=out))
    return out / "submission.zip"


EXPECTED = {"ISIC_0000012": np.s_[:, :24], "ISIC_0000013": np.s_[:9]}


def test_masks_have_the_size_of_the_photographs(segmented, tmp_path):
    path = submit(segmented, tmp_path / "out")
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    assert list(files) == [f"{name}_segmentation.png" for name in EXPECTED]
    for content, part in zip(files.values(), EXPECTED.values(), strict=True):
        image = Image.open(io.BytesIO(content))
        expected = np.zeros((36, 48), np.uint8)
        expected[part] = 255
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), expected)
    assert submit(segmented, tmp_path / "again").read_bytes() == path.read_bytes()


def test_the_scorer_finds_each_mask(segmented, tmp_path):
    with zipfile.ZipFile(submit(segmented, tmp_path / "out")) as archive:
        archive.extractall(tmp_path / "masks")
    for name, part in EXPECTED.items():
        mask = np.zeros((36, 48), bool)
        mask[part] = True
        write_png(tmp_path / f"truth/{name}_segmentation.png", mask)
    said = score("segmentation", tmp_path / "truth", tmp_path / "masks")
    assert said["overall"] == 1 and said["macro_average"]["jaccard"] == 1


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_a_cropped_or_padded_photograph_is_refused(segmented, tmp_path, fit):
    write_json(segmented / "data/config.json", {"fit": fit})
    with pytest.raises(ValueError, match=f"fit: {fit}, expected squash"):
        submit(segmented, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("column", "value", "fault"),
    [("id", "mine", "'mine', expected ISIC_ and seven"), ("original_width", "", "original_width")],
)
def test_images_that_cannot_be_scored_are_refused(segmented, tmp_path, column, value, fault):
    frame = read_manifest(segmented / "data/test.csv")
    frame.loc[0, column] = value
    write_manifest(frame, segmented / "data/test.csv")
    with pytest.raises(ValueError, match=fault):
        submit(segmented, tmp_path / "out")
    assert not (tmp_path / "out").exists()
