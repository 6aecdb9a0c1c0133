import zipfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from didgen.data.sources.isic2018 import isic2018_records
from didgen.data.sources.own import own_records
from didgen.data.sources.records import SourceError


def png(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path)


@pytest.fixture
def own(tmp_path):
    for name in "abc":
        png(tmp_path / f"{name}.png", np.zeros((8, 8, 3)))
    png(tmp_path / "a_mask.png", np.eye(8) * 255)
    rows = {"id": list("abc"), "image": [f"{n}.png" for n in "abc"], "label": ["", "MEL", "NV"]}
    frame = pd.DataFrame(rows).assign(mask=["a_mask.png", "", ""])

    def write(**changes):
        frame.assign(**changes).to_csv(tmp_path / "own.csv", index=False)
        return tmp_path / "own.csv"

    return write


def test_own_table_gives_records_that_load(own):
    records = own_records(own())
    assert [r.id for r in records] == ["a", "b", "c"]
    image, mask = records[0].pixels.load(8, "crop")
    assert image.shape == (8, 8, 3) and mask.sum() == 8
    assert records[1].pixels.load(8, "crop")[1] is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": ["a", "a", "c"]}, r"duplicate ids: 2 rows \(a, a\)"),
        ({"id": ["a/../x", "b", "c"]}, r"other characters .* 1 rows"),
        ({"label": ["", "wart", "NV"]}, r"unknown labels: 1 rows \(b\); use one of MEL"),
        ({"label": ["", "", "NV"]}, r"neither label nor mask: 1 rows \(b\)"),
        ({"image": ["a.png", "gone.png", "c.png"]}, r"image files that are not there: 1 rows"),
        ({"mask": ["gone.png", "", ""]}, r"mask files that are not there: 1 rows \(a\)"),
    ],
)
def test_own_table_faults_are_counted(own, changes, message):
    with pytest.raises(SourceError, match=message):
        own_records(own(**changes))


def test_missing_table_and_columns(tmp_path):
    with pytest.raises(SourceError, match="no such table"):
        own_records(tmp_path / "none.csv")
    (tmp_path / "t.csv").write_text("name,file\nx,y\n")
    with pytest.raises(SourceError, match=r"missing columns \['id', 'image'\]"):
        own_records(tmp_path / "t.csv")


def test_missing_archive_names_the_file_and_where_it_comes_from(tmp_path):
    with pytest.raises(
        SourceError, match=r"ISIC2018_Task1-2_Training_Input.zip: no such file; dow"
    ):
        isic2018_records(tmp_path, official=False)
    (tmp_path / "ISIC2018_Task1-2_Training_Input.zip").write_bytes(b"PK not a zip")
    with pytest.raises(SourceError, match="not a readable zip"):
        isic2018_records(tmp_path, official=False)


def test_archives_must_agree_with_their_ground_truth(tmp_path):
    with zipfile.ZipFile(tmp_path / "ISIC2018_Task1-2_Training_Input.zip", "w") as archive:
        archive.writestr("x/ISIC_1.jpg", b"")
        archive.writestr("x/ISIC_2.jpg", b"")
    with zipfile.ZipFile(tmp_path / "ISIC2018_Task1_Training_GroundTruth.zip", "w") as archive:
        archive.writestr("y/ISIC_1_segmentation.png", b"")
    with pytest.raises(SourceError, match="1 images without ground truth"):
        isic2018_records(tmp_path, official=False)


def test_the_reduced_isic_archives_have_their_known_counts(isic_mini):
    records = isic2018_records(isic_mini, official=False)
    labels = pd.Series([record.label for record in records]).value_counts().to_dict()
    assert labels[""] == 2294
    expected = {"MEL": 1113, "BCC": 514, "AKIEC": 327, "BKL": 1099, "DF": 115, "VASC": 142}
    assert {code: labels[code] for code in expected} == expected
    assert labels["NV"] == 600
    assert all(record.lesion_id.startswith("HAM_") for record in records if record.label)
    image, mask = records[0].pixels.load(128, "crop")
    assert image.shape == (128, 128, 3) and 0 < mask.mean() < 1
    assert records[-1].pixels.load(64, "squash")[0].shape == (64, 64, 3)
