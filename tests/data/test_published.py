"""The published data sets, each as a few tiny files in its own layout."""

import logging
import shutil

import pytest

from didgen.data.classes import CLASSES
from didgen.data.sources.catalog import provenance
from didgen.data.sources.layouts import published_records
from didgen.data.sources.published import LAYOUTS
from didgen.data.sources.records import SourceError
from tests.data.published_layouts import (
    EXCLUDED,
    EXPECTED,
    LOGGED,
    MAKERS,
    ham10000,
    isic2019,
    isic2020,
    ph2,
    picture,
    write,
)


def read(name, folder):
    return published_records(folder, LAYOUTS[name])


def offered(records):
    return [record for record in records if not record.excluded]


def test_every_source_has_an_example():
    assert set(LAYOUTS) == set(MAKERS) == set(EXPECTED) == set(LOGGED)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_published_layout_is_mapped(tmp_path, caplog, name):
    MAKERS[name](tmp_path)
    with caplog.at_level(logging.INFO, "didgen"):
        everyone = read(name, tmp_path)
    records = offered(everyone)
    found = [
        (r.id, r.label, r.lesion_id, r.patient_id, r.split, r.pixels.has_mask) for r in records
    ]
    why = "their diagnosis has no class of ISIC 2018"
    assert [(r.id, r.excluded) for r in everyone if r.excluded] == (
        [(name, why) for name in EXCLUDED.get(name, ())]
    )
    assert found == EXPECTED[name]
    assert LOGGED[name] in caplog.text
    assert provenance(records[0].source).licence
    for record in records:
        image, mask = record.pixels.load(4, "crop")
        assert image.shape == (4, 4, 3)
        assert mask is None or mask.sum() == 4


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_empty_folder_is_told_what_belongs_there(tmp_path, name):
    with pytest.raises(
        SourceError, match=r": no .*, the table of .*; found tables: none; set data"
    ):
        read(name, tmp_path)
    (tmp_path / "part_1.zip").touch()
    with pytest.raises(SourceError, match="unpack the 1 archives there"):
        read(name, tmp_path)
    with pytest.raises(SourceError, match=r"gone: no such folder; set data\.folder"):
        read(name, tmp_path / "gone")


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


TABLE = "HAM10000_metadata.csv"
FAULTS = {
    "missing column": (lambda f: edit(f / TABLE, "dx,", "diagnosis,"),
                       r"HAM10000_metadata.csv: missing columns \['dx'\]; found \['lesion_id'"),
    "duplicate ids": (lambda f: edit(f / TABLE, "ISIC_1,", "ISIC_0,"),
                      r"duplicate ids: 2 rows \(ISIC_0, ISIC_0\); give every image its own id"),
    "case": (lambda f: edit(f / TABLE, "ISIC_1,", "isic_0,"),
             r"differ only in upper and lower case: 2 rows \(ISIC_0, isic_0\)"),
    "empty ids": (lambda f: edit(f / TABLE, "ISIC_1,", ","), r"empty id: 1 rows \(line 3\)"),
    "path as id": (lambda f: edit(f / TABLE, "ISIC_1,", "../ISIC_1,"),
                   r"other characters than letters.*: 1 rows \(\.\./ISIC_1\)"),
    "missing images": (lambda f: shutil.rmtree(f / "HAM10000_images_part_2"),
                       r"that are not there: 3 rows \(ISIC_1, ISIC_3, ISIC_5\); unpack .* 4 image"),
    "two copies": (lambda f: shutil.copytree(f / "HAM10000_images_part_1", f / "copy"),
                   r"there more than once: 4 images \(.*ISIC_0.jpg and .*\); keep one copy"),
    "two masks": (lambda f: shutil.copytree(f / "HAM10000_segmentations_lesion_tschandl", f / "m"),
                  r"masks that are there more than once: 6 files"),
    "two tables": (lambda f: (shutil.copytree(f, f / "a"), shutil.copytree(f / "a", f / "b"),
                              (f / TABLE).unlink()),
                   r"more than one HAM10000_metadata.csv: 2 files"),
    "no class": (lambda f: write(f / TABLE, "lesion_id,image_id,dx", "H,ISIC_0,wart"),
                 r"none of 1 rows has a diagnosis that is a class of ISIC 2018; found \['wart'\]"),
    "no rows": (lambda f: write(f / TABLE, "lesion_id,image_id,dx"), "no rows under the column"),
    "not UTF-8": (lambda f: (f / TABLE).write_bytes(b"lesion_id,image_id,dx\nH,\xff,nv\n"),
                  r"metadata.csv: cannot be read as a table .*; expected a CSV in UTF-8"),
    "empty file": (lambda f: (f / TABLE).write_bytes(b""), "is empty; expected a line of col"),
    "ragged": (lambda f: write(f / TABLE, "lesion_id,image_id,dx", "H,I,nv", "H,I,nv,x,y"),
               "more cells than the 3 column names: 1 rows .line 3.; name every column"),
    "unknown split": (lambda f: write(f / TABLE, "lesion_id,image_id,dx,split", "H,ISIC_0,nv,fold"),
                      r"unknown splits \['fold'\]: 1 rows \(ISIC_0\); use train, val and test"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_a_published_set_are_counted(tmp_path, fault):
    ham10000(tmp_path)
    change, message = FAULTS[fault]
    change(tmp_path)
    with pytest.raises(SourceError, match=message):
        read("ham10000", tmp_path)


TRUTH, METADATA = "ISIC_2019_Training_GroundTruth.csv", "ISIC_2019_Training_Metadata.csv"
FAULTS_2019 = {
    "no metadata": (lambda f: (f / METADATA).unlink(), f"no {METADATA}, the table of ISIC 2019"),
    "lesion column": (lambda f: edit(f / METADATA, "lesion_id", "lesion"), r"\['lesion_id'\]"),
    "class column": (lambda f: edit(f / TRUTH, "SCC", "S"), r"missing columns \['SCC'\]"),
    "two hot": (lambda f: edit(f / TRUTH, "Tr0,1.0,0.0", "Tr0,1.0,1.0"),
                r"without exactly one diagnosis of MEL, .*: 1 rows \(ISIC_Tr0\)"),
    "not hot": (lambda f: edit(f / TRUTH, "Tr0,1.0,0.0", "Tr0,x,0.5"),
                r"cells other than 0.0 and 1.0: 1 rows \(ISIC_Tr0\)"),
    "lone truth": (lambda f: edit(f / METADATA, "ISIC_Tr0", "ISIC_Tx0"),
                   rf"images that {METADATA} lacks: 1 rows \(ISIC_Tr0\)"),
    "twice": (lambda f: edit(f / METADATA, "ISIC_Tr0", "ISIC_Tr2"),
              r"duplicate images: 1 rows \(ISIC_Tr2\)"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS_2019)
def test_faults_of_isic_2019_are_counted(tmp_path, fault):
    isic2019(tmp_path)
    change, message = FAULTS_2019[fault]
    change(tmp_path)
    with pytest.raises(SourceError, match=message):
        read("isic2019", tmp_path)


def test_ph2_names_what_its_table_lacks(tmp_path):
    ph2(tmp_path)
    table = tmp_path / "PH2Dataset/PH2_dataset.txt"
    whole = table.read_text()
    table.write_text(whole.replace("||                  1 ||", ""))
    table.write_text(table.read_text().replace("|| IMD001 ||", "||  ||"))
    with pytest.raises(SourceError, match="1 of 3 rows have no name or no diagnosis"):
        read("ph2", tmp_path)
    table.write_text(whole.replace("Clinical Diagnosis", "Diagnosis"))
    with pytest.raises(SourceError, match="no line of column names; found"):
        read("ph2", tmp_path)
    table.rename(table.with_suffix(".xlsx"))
    with pytest.raises(SourceError, match=r"xlsx is not read, its twin PH2_dataset\.txt is"):
        read("ph2", tmp_path)


def test_tables_may_be_separated_by_tabs_and_quoted(tmp_path):
    ham10000(tmp_path)
    text = (tmp_path / TABLE).read_text().replace(",nv,", ',"nv",').replace(",", "\t")
    (tmp_path / TABLE).unlink()
    (tmp_path / "HAM10000_metadata.tab").write_text(text)
    assert [r.label for r in read("ham10000", tmp_path)] == [e[1] for e in EXPECTED["ham10000"]]


def test_the_isic_archive_copy_of_bcn20000_writes_diagnoses_out(tmp_path, caplog):
    words = ("Nevus", "Melanoma, NOS", "Solar or actinic keratosis", "Scar", "Pilomatricoma")
    rows = [f'ISIC_{k},"{word}",IL_{k}' for k, word in enumerate(words)]
    write(tmp_path / "bcn20000_metadata_2025-05-22.csv", "isic_id,diagnosis_3,lesion_id", *rows)
    for k in range(len(words)):
        picture(tmp_path / f"ISIC_{k}.jpg")
    records = read("bcn20000", tmp_path)
    assert [r.label for r in offered(records)] == ["NV", "MEL", "AKIEC"]
    assert [(r.id, r.excluded, r.lesion_id) for r in records if r.excluded] == [
        ("ISIC_3", "their diagnosis has no class of ISIC 2018", "IL_3"),
        ("ISIC_4", "their diagnosis is not known to this reader", "IL_4"),
    ]
    assert "1 of 5 images left out, their diagnosis is not known to this reader: Pilomatr" in (
        caplog.text
    )


def test_dicom_twins_of_isic_2020_are_passed_over_but_not_taken_instead(tmp_path):
    isic2020(tmp_path)
    (tmp_path / "dicom").mkdir()
    for k in range(8):
        (tmp_path / f"dicom/ISIC_{k}.dcm").touch()
    assert len(offered(read("isic2020", tmp_path))) == 5
    shutil.rmtree(tmp_path / "train")
    with pytest.raises(SourceError, match=r"\.dcm images: 8 files .*convert the file to PNG"):
        read("isic2020", tmp_path)


def test_every_diagnosis_maps_to_a_class_or_to_none():
    for layout in LAYOUTS.values():
        assert set(layout.diagnoses.values()) <= {*CLASSES, ""}
        assert all(word == word.lower() for word in layout.diagnoses)
