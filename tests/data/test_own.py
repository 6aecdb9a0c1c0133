"""The user's own images: tables with names of their own, and folders a class."""

import logging

import numpy as np
import pytest
from PIL import Image

from didgen.data.sources.own import folder_records, own_records
from didgen.data.sources.records import SourceError

LESION = np.pad(np.full((2, 2), 255, np.uint8), 1)


def picture(path, array=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8) if array is None else array).save(path)


def table(folder, *lines, name="own.csv"):
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder / name


@pytest.fixture
def clinic(tmp_path):
    """A table as a clinic exports it: names, words and separator of its own."""
    for name in ("one.JPG", "two.JPG", "three.JPG"):
        picture(tmp_path / "photos" / name)
    picture(tmp_path / "photos/two_outline.png", LESION)
    return table(
        tmp_path,
        "case;file;outline;diagnosis;patient;fold",
        "c1;photos/one.JPG;;Naevus;p1;Training",
        "c2;photos/two.JPG;photos/two_outline.png;unclear;p1;test",
        "c3;photos/three.JPG;;unclear;p2;",
    )


COLUMNS = {
    "id": "case", "image": "file", "mask": "outline", "label": "diagnosis", "split": "fold",
    "patient_id": "patient", "lesion_id": "patient",
}  # fmt: skip


def test_columns_and_labels_are_mapped_and_left_out_rows_counted(clinic, caplog):
    with caplog.at_level(logging.INFO, "didgen"):
        records = own_records(clinic, COLUMNS, {"naevus": "NV", "Unclear": None})
    found = [(r.id, r.label, r.patient_id, r.lesion_id, r.split) for r in records]
    assert found[:2] == [("c1", "NV", "p1", "p1", "train"), ("c2", "", "p1", "p1", "test")]
    assert [r.excluded for r in records] == ["", "", "data.labels gives them no class"]
    assert records[2].patient_id == "p2"
    assert records[1].pixels.load(4, "crop")[1].sum() == 4
    assert "1 of 3 images left out, data.labels gives them no class: unclear 1" in caplog.text


@pytest.mark.parametrize(
    ("columns", "labels", "message"),
    [
        ({"picture": "file"}, {}, r"data.columns: unknown fields \['picture'\]; expected some of"),
        (COLUMNS | {"mask": "msk"}, {}, r"missing columns \['msk'\]; found \['case', 'file'"),
        ({"id": "case"}, {}, r"missing columns \['image'\].*name yours in data.columns"),
        (COLUMNS, {}, r"unknown labels: 3 rows \(c1, c2, c3\); use .*found unclear 2, Naevus 1"),
        (COLUMNS, {"Naevus": "nevus"}, r"data.labels: .* name no class; expected one of MEL"),
        (COLUMNS | {"split": "case"}, {}, r"unknown splits \['c1', 'c2', 'c3'\]: 3 rows"),
    ],
)
def test_faults_of_the_mapping_are_told(clinic, columns, labels, message):
    with pytest.raises(SourceError, match=message):
        own_records(clinic, columns, labels)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a,i.png,,MEL", "b,i.png,,NV"], r"the same image file in several rows: 2 rows \(a, b\)"),
        (["a,i.png,m.png,", "b,j.png,m.png,"], r"the same mask file in several rows: 2 rows"),
        (["a,,,MEL", "b,i.png,,NV"], r"empty image: 1 rows \(a\); name the file"),
        (
            ["a,gone.png,,MEL", "b,i.png,,NV"],
            r"image files that are not there, or no regular files: 1 rows \(a\)",
        ),
        (["a b,i.png,,MEL"], r"other characters .*: 1 rows \(a b\); rename them"),
        (["-a,i.png,,MEL"], r"ids that start with '\.' or '-': 1 rows"),
        (["a" * 201 + ",i.png,,MEL"], r"more than 200 characters: 1 rows \(a{20}\.\.\.\); short"),
        ([",i.png,,MEL"], r"empty id: 1 rows \(line 2\)"),
        (["a,i.png,,", "b,j.png,,NV"], r"neither label nor mask: 1 rows \(a\)"),
        (
            ["a,i.png,m.png,MEL,x", "b,j.png,,NV,y"],
            "more cells .*: 2 rows .line 2, line 3",
        ),
    ],
)
def test_faults_of_a_table_are_counted(tmp_path, rows, message):
    for name in ("i.png", "j.png", "m.png"):
        picture(tmp_path / name)
    with pytest.raises(SourceError, match=message):
        own_records(table(tmp_path, "id,image,mask,label", *rows))


def test_cells_left_empty_at_the_end_of_all_rows_are_no_fault(tmp_path):
    picture(tmp_path / "i.png")
    path = table(tmp_path, "id,image,label", "a,i.png,MEL,")
    assert [(r.id, r.label) for r in own_records(path)] == [("a", "MEL")]


@pytest.mark.parametrize("names", ["id,image,label,label", '"id", id ,image'])
def test_columns_of_one_name_are_refused(tmp_path, names):
    with pytest.raises(SourceError, match="names that occur more than once: 1 names .(label|id)"):
        own_records(table(tmp_path, names, "a,b,c,d"[: 2 * len(names.split(",")) - 1]))


def test_lesions_that_are_counted_anew_for_each_patient_are_refused(tmp_path):
    for name in "abcde":
        picture(tmp_path / f"{name}.png")
    rows = [f"{name},{name}.png,NV,{lesion}" for name, lesion in
            zip("abcde", ("1,p", "1,q", "2,p", "3,", "3,r"), strict=True)]  # fmt: skip
    with pytest.raises(SourceError, match=r"more than one patient: 1 lesions \(1\); give each les"):
        own_records(table(tmp_path, "id,image,label,lesion_id,patient_id", *rows))
    records = own_records(table(tmp_path, "id,image,label,lesion_id,patient_id", *rows[1:]))
    assert [r.lesion_id for r in records] == ["1", "2", "3", "3"]


def test_dicom_is_known_by_its_bytes_and_tables_are_told(tmp_path, caplog):
    picture(tmp_path / "NV/a.png")
    for name in ("NV/README", "classes.csv"):
        (tmp_path / name).write_text("words\n")
    with caplog.at_level(logging.INFO, "didgen"):
        assert [r.id for r in folder_records(tmp_path)] == ["a"]
    assert "2 tables or files without extension left aside (NV/README, classes.csv)" in caplog.text
    for name in ("NV/IM0001", "NV/1.2.840.10008"):
        (tmp_path / name).write_bytes(bytes(128) + b"DICM" + bytes(9))
    with pytest.raises(SourceError, match=r"dcm images: 2 files \(NV/1.2.840.10008, NV/IM0001\)"):
        folder_records(tmp_path)


def test_a_folder_for_each_class(tmp_path, caplog):
    root = tmp_path / "clinic"
    for name in ("mel/a.JPG", "NV/b.png", "Warts/w.jpeg", "unsorted/u.tif", "nv/c.tiff"):
        picture(root / name)
    picture(root / "mel/a_segmentation.png", LESION)
    picture(root / "unsorted/u_MASK.PNG", LESION)
    for name in (".hidden/x.jpg", "NV/.b.png", "__MACOSX/NV/b.png"):
        picture(root / name)
    for name in ("mel/notes.docx", "mel/Thumbs.db", "NV/clip.mov", "NV/more.docx"):
        (root / name).touch()
    with caplog.at_level(logging.INFO, "didgen"):
        records = folder_records(root, {"warts": None, "UNSORTED": None})
    found = [(r.id, r.label, r.split, r.pixels.has_mask) for r in records if not r.excluded]
    assert sorted(found) == [
        ("a", "MEL", "", True), ("b", "NV", "", False), ("c", "NV", "", False), ("u", "", "", True),
    ]  # fmt: skip
    assert {r.source for r in records} == {"clinic"}
    assert "3 files left aside by extension: .docx 2, .mov 1" in caplog.text
    assert "1 of 5 images left out, data.labels gives them no class: Warts 1" in caplog.text


def test_folders_for_splits_above_the_classes(tmp_path):
    for name in ("train/MEL/a.jpg", "Validation/NV/b.jpg", "test/NV/c.jpg", "test/d.jpg"):
        picture(tmp_path / name)
    picture(tmp_path / "test/d_mask.png", LESION)
    found = {r.id: (r.split, r.label) for r in folder_records(tmp_path)}
    assert found == {
        "a": ("train", "MEL"), "b": ("val", "NV"), "c": ("test", "NV"), "d": ("test", ""),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], r"no images; expected .*/CLASS/\*\.jpg or .* found 0 masks and 0 other files"),
        (["wart/a.jpg", "wart/b.jpg"], r"unknown labels: 2 rows \(a, b\); .*found wart 2"),
        (["MEL/a.jpg", "NV/a.png"], r"same name in different folders.*: 2 images \(MEL/a.jpg, NV/"),
        (["MEL/a.jpg", "MEL/a.png"], r"or with different extensions: 2 images"),
        (["MEL/a.jpg", "NV/A.jpg"], r"differ only in upper and lower case: 2 rows"),
        (["MEL/a b.jpg", "NV/\u00e9.jpg"], r"characters than letters.*: 2 rows \(a b, \u00e9\)"),
        (["a.jpg", "MEL/b.jpg"], r"neither label nor mask: 1 rows \(a\)"),
        (["MEL/a.jpg", "MEL/a_mask.png", "MEL/a_segmentation.png"],
         r"more than one mask for an image: 1 images \(a_mask.png and a_segmentation.png\); keep"),
        (["MEL/a.jpg", "MEL/b_mask.png"], r"masks without an image beside them: 1 masks \(MEL/b_m"),
        (["MEL/a.jpg", "NV/a_mask.png"], r"masks without an image beside them: 1 masks \(NV/a_m"),
        (["MEL/a.jpg", "MEL/b.DCM", "NV/c.dcm"], r"\.dcm images: 2 files \(MEL/b.DCM, NV/c.dcm\)"),
        (["MEL/a.jpg", "MEL/b.heic"], r"\.heic images: 1 files .*convert them to JPEG"),
    ],
)  # fmt: skip
def test_faults_of_a_folder_are_counted(tmp_path, names, message):
    for name in names:
        if name.lower().endswith((".dcm", ".heic")):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        else:
            picture(tmp_path / name)
    with pytest.raises(SourceError, match=message):
        folder_records(tmp_path)


def test_a_folder_that_links_to_itself_ends(tmp_path):
    picture(tmp_path / "MEL/a.jpg")
    (tmp_path / "MEL/again").symlink_to(tmp_path, target_is_directory=True)
    assert [r.id for r in folder_records(tmp_path)] == ["a"]


def test_labels_that_leave_nothing_are_refused(tmp_path):
    picture(tmp_path / "wart/a.jpg")
    with pytest.raises(SourceError, match="data.labels leaves no image of 1; map some words"):
        folder_records(tmp_path, {"wart": None})
