import zipfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from didgen.data.classes import CLASSES
from didgen.data.images import ImageError
from didgen.data.sources.isic2018 import isic2018_records
from didgen.data.sources.own import own_records
from didgen.data.sources.phantom import phantom_records
from didgen.data.sources.records import FilePixels, SourceError, ZipPixels
from didgen.tiny import pretraining


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
        (
            {"image": ["a.png", "gone.png", "c.png"]},
            r"image files that are not there, or no regular files: 1 rows",
        ),
        (
            {"mask": ["gone.png", "", ""]},
            r"mask files that are not there, or no regular files: 1 rows \(a\)",
        ),
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


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a b", "c"], r"other characters than letters.*: 1 rows \(a b\)"),
        (["\x1b[2Ja", "c"], r"other characters than letters.*: 1 rows \('\\x1b\[2Ja'\)"),
        (["A", "a"], r"differ only in upper and lower case: 2 rows"),
        (["a" * 250, "c"], "more than 200 characters: 1 rows"),
        ([".a", "c"], r"start with '\.' or '-': 1 rows"),
    ],
)
def test_members_that_cannot_name_a_file_are_refused(tmp_path, names, message):
    for kind, ending in (("1-2_Training_Input", ".jpg"), ("1_Training_GroundTruth", ".png")):
        with zipfile.ZipFile(tmp_path / f"ISIC2018_Task{kind}.zip", "w") as archive:
            for name in names:
                archive.writestr(f"x/{name}{'_segmentation' * (ending == '.png')}{ending}", b"")
    groups = task3(tmp_path / "other", HEADER + "ISIC_2,1.0" + ",0.0" * 6)
    for path in groups.parent.glob("*Task3*"):
        path.rename(tmp_path / path.name)
    with pytest.raises(SourceError, match=message):
        isic2018_records(tmp_path, official=False)


def task3(folder, content):
    """Archives of Task 1 with one image each, and of Task 3 with a ground truth of our own."""
    folder.mkdir(exist_ok=True)
    for name, member in (
        ("Task1-2_Training_Input", "ISIC_1.jpg"),
        ("Task1_Training_GroundTruth", "ISIC_1_segmentation.png"),
        ("Task3_Training_Input", "ISIC_2.jpg"),
    ):
        with zipfile.ZipFile(folder / f"ISIC2018_{name}.zip", "w") as archive:
            archive.writestr(member, b"")
    with zipfile.ZipFile(folder / "ISIC2018_Task3_Training_GroundTruth.zip", "w") as archive:
        archive.writestr("truth.csv", content)
    groups = folder / "ISIC2018_Task3_Training_LesionGroupings.csv"
    groups.write_text("image,lesion_id\nISIC_2,HAM_7\n")
    return groups


HEADER = "image," + ",".join(CLASSES) + "\n"


def test_a_ground_truth_gives_label_and_lesion(tmp_path):
    task3(tmp_path, HEADER + "ISIC_2,0.0,1.0" + ",0.0" * 5 + "\n")
    record = isic2018_records(tmp_path, official=False)[1]
    assert (record.id, record.label, record.lesion_id) == ("ISIC_2", list(CLASSES)[1], "HAM_7")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "image,MEL\nISIC_2,1.0\n",
            r"missing columns \['NV', .*found \['image', 'MEL'\], expected",
        ),
        (HEADER + "ISIC_2,x" + ",0.0" * 6, r"column MEL of ISIC_2: found 'x', expected 0.0 or 1.0"),
        (HEADER + "ISIC_2,0.5" + ",0.0" * 6, r"column MEL of ISIC_2: found '0.5', expected"),
        (HEADER + "ISIC_2,1.0\n", r"column NV of ISIC_2: found None, expected 0.0 or 1.0"),
        (HEADER + "ISIC_2" + ",1.0" * 7, r"ISIC_2 has 7 diagnoses, expected exactly one"),
        (b"image,\xff\xfe\n", r"not a CSV in UTF-8"),
    ],
)
def test_a_bad_ground_truth_names_file_and_column(tmp_path, content, message):
    task3(tmp_path, content)
    where = r"ISIC2018_Task3_Training_GroundTruth.zip/truth.csv: "
    with pytest.raises(SourceError, match=where + ".*" + message):
        isic2018_records(tmp_path, official=False)


def test_a_ground_truth_is_one_table(tmp_path):
    task3(tmp_path, HEADER)
    with zipfile.ZipFile(tmp_path / "ISIC2018_Task3_Training_GroundTruth.zip", "a") as archive:
        archive.writestr("other/another.csv", HEADER)
    with pytest.raises(SourceError, match="found 2 tables .truth.csv, other/another.csv., exp"):
        isic2018_records(tmp_path, official=False)


def test_lesion_groups_need_their_columns(tmp_path):
    groups = task3(tmp_path, HEADER + "ISIC_2,1.0" + ",0.0" * 6)
    groups.write_text("image,lesion\nISIC_2,HAM_7\n")
    with pytest.raises(SourceError, match=r"LesionGroupings.csv: missing columns \['lesion_id'\]"):
        isic2018_records(tmp_path, official=False)


def test_images_that_the_lesion_groups_lack_are_counted(tmp_path, caplog):
    groups = task3(tmp_path, HEADER + "ISIC_2,1.0" + ",0.0" * 6)
    for text in ("image,lesion_id\nISIC_9,HAM_7\n", "image,lesion_id\nISIC_2,\n"):
        groups.write_text(text)
        caplog.clear()
        assert isic2018_records(tmp_path, official=False)[1].lesion_id == ""
        assert "1 of 1 images have no lesion there (ISIC_2): each counts as a le" in caplog.text
    groups.write_text("image,lesion_id\nISIC_2,HAM_7\nISIC_2,HAM_7\n")
    caplog.clear()
    assert isic2018_records(tmp_path, official=False)[1].lesion_id == "HAM_7"
    assert not caplog.messages


def test_lesion_groups_and_ground_truths_that_contradict_themselves_are_refused(tmp_path):
    row = "ISIC_2,1.0" + ",0.0" * 6 + "\n"
    groups = task3(tmp_path, HEADER + row)
    groups.write_text("image,lesion_id\nISIC_2,HAM_7\nISIC_2,HAM_8\nISIC_1,HAM_1\n")
    with pytest.raises(SourceError, match=r"one image different lesions: 1 images \(ISIC_2\); fet"):
        isic2018_records(tmp_path, official=False)
    task3(tmp_path, HEADER + row + "ISIC_2,0.0,1.0" + ",0.0" * 5)
    with pytest.raises(SourceError, match=r"images with several rows: 1 images \(ISIC_2\)"):
        isic2018_records(tmp_path, official=False)


def test_archive_members_load_or_are_named(tmp_path):
    png(tmp_path / "i.png", np.full((8, 8, 3), 7))
    corner = np.zeros((8, 16))
    corner[0, 0] = 255
    png(tmp_path / "wide.png", np.zeros((8, 16, 3)))
    png(tmp_path / "corner.png", corner)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in ("i.png", "wide.png", "corner.png"):
            archive.write(tmp_path / name, f"x/{name}")
    image, mask = ZipPixels((path, "x/i.png")).load(8, "crop")
    assert (image == 7).all() and mask is None
    with pytest.raises(SourceError, match=r"^a\.zip/x/corner\.png: no lesion pixel is left"):
        ZipPixels((path, "x/wide.png"), (path, "x/corner.png")).load(8, "crop")
    with pytest.raises(SourceError, match=r"corner\.png: no lesion pixel is left"):
        FilePixels(tmp_path / "wide.png", tmp_path / "corner.png").load(8, "crop")
    with pytest.raises(ImageError, match=r"^a\.zip/x/i\.png: found a mask of 8x8 pixels, expected"):
        ZipPixels((path, "x/wide.png"), (path, "x/i.png")).load(8, "crop")
    with pytest.raises(SourceError, match=r"^a\.zip/gone\.png: cannot be read from the archive"):
        ZipPixels((path, "gone.png")).load(8, "crop")
    with pytest.raises(SourceError, match=r"^b\.zip/i\.png: cannot be read from the archive"):
        ZipPixels((tmp_path / "b.zip", "i.png")).load(8, "crop")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_member_is_named(tmp_path, method):
    rng = np.random.default_rng(0)
    png(tmp_path / "i.png", rng.integers(0, 255, (32, 32, 3)))
    content = (tmp_path / "i.png").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("i.png", content)
    whole = bytearray((tmp_path / "a.zip").read_bytes())
    # The last bytes of the member: of a PNG they are its end mark, which no decoder looks at.
    whole[whole.index(b"PK\x01\x02") - 2] ^= 0xFF
    (tmp_path / "a.zip").write_bytes(whole)
    with pytest.raises(SourceError, match=r"^a\.zip/i\.png: cannot be read from the archive"):
        ZipPixels((tmp_path / "a.zip", "i.png")).load(32, "crop")


# 256 phantoms are as many as a shard of the pretraining: with its seed, they would be the same.
@pytest.mark.parametrize(("seed", "count"), [(0, 256), (0, 480), (42, 480)])
def test_no_run_draws_phantoms_of_the_pretraining(tmp_path, monkeypatch, seed, count):
    seen = []
    cohort = pretraining.cohort

    def note(*args, **options):
        seen.extend(cohort(*args, **options))
        raise InterruptedError

    monkeypatch.setattr(pretraining, "cohort", note)
    for pretraining_seed in (0, seed):
        for shard in range(48):
            with pytest.raises(InterruptedError):
                pretraining.draw_shard(
                    tmp_path / "x", shard, 256, 32, pretraining_seed, lambda *_: ("", "")
                )
    specs = [record.pixels.spec for record in phantom_records(count, tuple(CLASSES), seed)]
    for kind in ("patient_seed", "lesion_seed", "photo_seed"):
        own = {getattr(spec, kind) for spec in specs}
        assert own and own.isdisjoint(getattr(spec, kind) for spec in seen)


def test_the_isic_archives_have_their_known_counts(isic_mini):
    records = isic2018_records(isic_mini, official=False)
    labels = pd.Series([record.label for record in records]).value_counts().to_dict()
    expected = {"MEL": 1113, "BCC": 514, "AKIEC": 327, "BKL": 1099, "DF": 115, "VASC": 142}
    assert {code: labels[code] for code in expected} == expected
    # Masks and nevi: the whole archives, or reduced ones.
    assert (labels[""], labels["NV"]) in {(2594, 6705), (2294, 600)}
    assert all(record.lesion_id.startswith("HAM_") for record in records if record.label)
    image, mask = records[0].pixels.load(128, "crop")
    assert image.shape == (128, 128, 3) and 0 < mask.mean() < 1
    assert records[-1].pixels.load(64, "squash")[0].shape == (64, 64, 3)
