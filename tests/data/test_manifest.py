import pandas as pd
import pytest

from didgen.data.manifest import ManifestError, read_manifest, resolve, write_manifest


def manifest(**changes) -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "id": ["a", "b", "c"],
            "image": ["images/a.png", "images/b.png", "images/c.png"],
            "mask": ["masks/a.png", "", ""],
            "label": ["", "MEL", "NV"],
            "split": ["train", "val", "test"],
            "lesion_id": ["L1", "L2", ""],
            "patient_id": ["P1", "P2", ""],
            "source": "x",
            "width": 8,
            "height": 8,
            "sha256": "0",
        }
    )
    return frame.assign(**changes)


def test_round_trip_keeps_empty_text_and_integers(tmp_path):
    write_manifest(manifest(extra=["NA", "", "null"]), tmp_path / "m.csv")
    read = read_manifest(tmp_path / "m.csv", check_files=False)
    assert read["mask"].tolist() == ["masks/a.png", "", ""]
    assert read["extra"].tolist() == ["NA", "", "null"]
    assert read["width"].dtype == "int64"
    assert resolve(tmp_path / "m.csv", read["mask"])[1:] == [None, None]
    assert resolve(tmp_path / "m.csv", read["mask"])[0] == tmp_path / "masks/a.png"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": ["a", "a", "c"]}, r"duplicate ids: 1 \(a\)"),
        ({"width": [0, 8, 8]}, r"width or height is less than 1 px: 1 \(a\)"),
        ({"height": [8, -5, 8]}, r"width or height is less than 1 px: 1 \(b\)"),
        ({"mask": ["images/a.png", "", ""]}, r"rows whose mask is their image: 1 \(a\)"),
        ({"id": ["a\n", "b", "c"]}, r"ids that are no file names: 1 \('a\\n'\)"),
        ({"id": ["x" * 300, "b", "c"]}, "ids that are no file names: 1"),
        ({"id": ["a", "A", "c"]}, r"only in upper and lower case: 2 \(a, A\); rename them"),
        ({"image": ["a.png", "b.png", "./b.png"]}, r"rows that share one image file: 2 \(b, c\)"),
        ({"image": ["A.png", "a.png", "c.png"]}, r"rows that share one image file: 2 \(a, b\)"),
        ({"mask": ["m.png", "m.png", ""]}, r"rows that share one mask file: 2 \(a, b\)"),
        ({"label": ["", "WART", "NV"]}, r"unknown labels: 1 \(WART\); use one of MEL, NV"),
        ({"label": ["", "", "NV"]}, r"neither label nor mask: 1 \(b\)"),
        ({"split": ["train", "dev", "test"]}, r"unknown splits: 1 \(dev\)"),
        ({"lesion_id": ["L1", "L1", ""]}, r"lesions in more than one split: 1 \(L1\)"),
        ({"patient_id": ["P1", "P2", "P1"]}, r"patients in more than one split: 1 \(P1\)"),
        ({"cluster": ["b", "b", ""]}, r"clusters of duplicates in more than one split: 1 \(b\)"),
        ({"image": ["/etc/passwd", "x", "y"]}, r"paths that leave the folder: 1"),
        ({"image": ["../a.png", "x", "y"]}, r"paths that leave the folder: 1"),
        ({"image": ["", "x", "y"]}, r"rows without image: 1 \(a\)"),
    ],
)
def test_broken_rules_are_named_with_rows_and_remedy(tmp_path, changes, message):
    with pytest.raises(ManifestError, match=message):
        write_manifest(manifest(**changes), tmp_path / "m.csv")
    assert not (tmp_path / "m.csv").exists()


def test_missing_columns_rows_and_files_are_named(tmp_path):
    with pytest.raises(ManifestError, match=r"missing columns \['sha256'\]"):
        write_manifest(manifest().drop(columns="sha256"), tmp_path / "m.csv")
    with pytest.raises(ManifestError, match="no rows"):
        write_manifest(manifest().iloc[:0], tmp_path / "m.csv")
    with pytest.raises(ManifestError, match="no such manifest"):
        read_manifest(tmp_path / "absent.csv")
    write_manifest(manifest(), tmp_path / "m.csv")
    with pytest.raises(ManifestError, match="missing files: 4"):
        read_manifest(tmp_path / "m.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfea\0", "m.csv: cannot be read as a table .*UTF-8"),
        (b"", "m.csv: is empty"),
        (b'id,caption\na,"one\nb,two\nc,"three\n', "m.csv, line 4: cannot be read as a table"),
        (b"id,image\na,b,c\n", "more cells than the 2 column names"),
    ],
)
def test_a_manifest_that_is_no_table_is_named(tmp_path, content, message):
    (tmp_path / "m.csv").write_bytes(content)
    with pytest.raises(ManifestError, match=message):
        read_manifest(tmp_path / "m.csv")


@pytest.mark.parametrize("width", ["8.5", "1e400", "", "9" * 30, "x"])
def test_sizes_that_are_no_whole_numbers_are_refused(tmp_path, width):
    manifest(width=[width, "8", "8"]).to_csv(tmp_path / "m.csv", index=False)
    with pytest.raises(ManifestError, match=r"width is not a whole number: 1 \(a\)"):
        read_manifest(tmp_path / "m.csv", check_files=False)


@pytest.mark.parametrize("name", ["../a", "/a", "a/b", "..", ""])
def test_ids_that_leave_the_folder_are_refused(tmp_path, name):
    """Pictures are named after them."""
    manifest(id=[name, "b", "c"]).to_csv(tmp_path / "m.csv", index=False)
    with pytest.raises(ManifestError, match="ids that are no file names: 1"):
        read_manifest(tmp_path / "m.csv", check_files=False)


def test_names_that_no_file_can_have_are_missing_files(tmp_path):
    manifest(image=["x" * 5000, "b.png", "c.png"]).to_csv(tmp_path / "m.csv", index=False)
    with pytest.raises(ManifestError, match="missing files: 4"):
        read_manifest(tmp_path / "m.csv")
