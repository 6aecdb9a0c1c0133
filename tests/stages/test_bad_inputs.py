"""What users' own images come with: what is refused, in one sentence with a count, and what is not.

Each fault is put into a table of 24 good images, or into a folder of them, and told by `data`
before any manifest is written.
"""

import json
import os

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from didgen.stages.data import Config, run
from tests.stages.clinic_images import (
    COUNT,
    DICOM,
    RNG,
    both,
    cell,
    dim,
    file,
    floats,
    half,
    named,
    outline,
    pages,
    photograph,
    prepare,
    turned,
    write_clinic,
)


@pytest.fixture
def clinic(tmp_path):
    """A folder and its table; tests change both."""
    return tmp_path, write_clinic(tmp_path)


ONE = "1 of 24 images cannot be used:\n  i03: .*"
TABLE = {
    "DICOM": (named(3, "3.dcm", DICOM), ONE + "found a DICOM file.*dcmj2pnm"),
    "DICOM called PNG": (file("3.png", DICOM), ONE + "found a DICOM file"),
    "HEIC": (named(3, "3.heic", b"\0\0\0\x18ftypheic" + bytes(40)), ONE + "HEIC|" + ONE + "found"),
    "12 bits in a 16-bit TIFF": (named(3, "3.tif", dim), ONE + "at most a sixteenth of the range"),
    "floating-point TIFF": (named(3, "3.tif", floats), ONE + "found F pixels, expected 8 or 16"),
    "several pages": (named(3, "3.tif", pages), ONE + "found 2 pages or frames, expected one"),
    "empty file": (file("3.png", b""), ONE + r"is empty \(0 bytes\)"),
    "no image": (file("3.png", b"not an image"), ONE + "cannot be read as an image"),
    "cut off": (named(3, "3.jpg", half), ONE + "3.jpg"),
    "two unreadable": (both(file("3.png", b""), file("5.png", b"x")),
                       "2 of 24 images cannot be used:\n  i03: .*\n  i05: "),
    "one pixel": (both(file("3.png", lambda p: photograph((1, 1)).save(p)), cell("mask", 3, "")),
                  ONE + "found 1x1 px, expected at least 8 px a side"),
    "one line": (both(file("3.png", lambda p: photograph((20000, 1)).save(p)),
                      cell("mask", 3, "")), ONE + "found 20000x1 px"),
    "unreadable mask": (file("3_mask.png", b"x"), ONE + "3_mask.png"),
    "mask of another size": (file("3_mask.png", lambda p: outline((60, 50)).save(p)),
                             ONE + "found a mask of 60x50 pixels, expected 48x40"),
    "mask of the unturned image": (file("3.png", turned), ONE + "turn it, as the image's EXIF"),
    "empty mask": (file("3_mask.png", lambda p: Image.new("L", (48, 40)).save(p)),
                   ONE + "mask is empty"),
    "gray mask": (file("3_mask.png", lambda p: Image.linear_gradient("L").resize((48, 40)).save(p)),
                  ONE + "not binary"),
    "mask outside the crop": (file("3_mask.png", lambda p: Image.fromarray(
        np.pad(np.full((40, 2), 255, np.uint8), ((0, 0), (0, 46)))).save(p)),
                              ONE + "no lesion pixel is left at 32 px after 'crop'"),
    "missing images": (cell("image", [2, 3, 4], "gone.png"),
                       r"image files that are not there, .*: 3 rows \(i02, i03, i04\); correct"),
    "missing mask": (cell("mask", 3, "gone.png"), r"mask files that are not.*: 1 rows \(i03\)"),
    "NUL in a name": (cell("image", 3, "3\0.png"), r"control characters in image: 1 rows \(i03\)"),
    "a name that is too long": (cell("image", 3, "x" * 5000), r"image files .*: 1 rows \(i03\)"),
    "a folder": (cell("image", 3, "."), r"image files .* no regular files: 1 rows \(i03\)"),
    "a pipe": (lambda f, t: (os.unlink(f / "3.png"), os.mkfifo(f / "3.png")),
               r"image files .* no regular files: 1 rows \(i03\)"),
    "one image under two spellings": (cell("image", [3, 4], ["3.png", "./3.png"]),
                                      r"the same image file in several rows: 2 rows \(i03, i04\)"),
    "no image named": (cell("image", 3, ""), r"empty image: 1 rows \(i03\); name the file"),
    "the same image twice": (cell("image", [3, 4], "3.png"),
                             r"the same image file in several rows: 2 rows \(i03, i04\)"),
    "the same mask twice": (cell("mask", [3, 4], "3_mask.png"), "same mask file .*: 2 rows"),
    "duplicate ids": (cell("id", [3, 4], "x"), r"duplicate ids: 2 rows \(x, x\); give every image"),
    "ids alike but for case": (both(cell("id", 3, "X"), cell("id", 4, "x")),
                               r"only in upper and lower case: 2 rows \(X, x\)"),
    "empty ids": (cell("id", [3, 4], ""), r"empty id: 2 rows \(line 5, line 6\)"),
    "ids that leave the folder": (cell("id", 3, "../x"), r"other characters .*: 1 rows \(\.\./x\)"),
    "unknown labels": (cell("label", [3, 4], "wart"),
                       r"unknown labels: 2 rows \(i03, i04\); use one of .*found wart 2"),
    "neither label nor mask": (both(cell("label", 3, ""), cell("mask", 3, "")),
                               r"neither label nor mask: 1 rows \(i03\); give each image"),
    "unknown splits": (cell("split", [3, 4], "fold1"),
                       r"unknown splits \['fold1'\]: 2 rows \(i03, i04\); use train, val and test"),
    "splits for some": (cell("split", list(range(20)), "train"),
                        r"splits: auto, but 4 of 24 images have no split \(i20, i21, i22, i23\)"),
    "no such class": (cell("label", list(range(1, 24, 2)), "DF"),
                      r"data.classes asks for \['NV'\], but the source has no image of them"),
    "too few patients": (cell("patient_id", list(range(24)), [f"p{k % 2}" for k in range(24)]),
                         "found 2 independent groups of images .* expected at least 3"),
    "lesions counted anew for each patient": (
        both(cell("lesion_id", [3, 4], "1"), cell("patient_id", [3, 4], ["p", "q"])),
        r"lesion_id of more than one patient: 1 lesions \(1\); give each lesion an id",
    ),
    "a lesion in two splits": (
        both(cell("split", list(range(24)), ["train", "train", "val", "test"] * 6),
             cell("lesion_id", [1, 3], "L")),
        r"1 pairs of related images stand in two splits: 1 lesion \(i01 \(train\) and i03 \(test",
        {"on_leak": "error"},
    ),
    "no masks": (cell("mask", list(range(24)), ""), "0 masks in .* set data.tasks: .classificat"),
}  # fmt: skip


@pytest.mark.parametrize("fault", TABLE)
def test_a_fault_in_a_table_is_told_with_its_count(clinic, fault):
    folder, frame = clinic
    change, message, *settings = TABLE[fault]
    change(folder, frame)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        prepare(folder, frame, **dict(*settings))
    assert not list((folder / "out").glob("*.csv"))


WHOLE = {
    "no table": (lambda f: (f / "own.csv").unlink(), "no such table; set data.table to a CSV"),
    "empty table": (lambda f: (f / "own.csv").write_text(""), "is empty; expected a line of col"),
    "no rows": (lambda f: (f / "own.csv").write_text("id,image\n"), "no rows under the column na"),
    "missing columns": (lambda f: (f / "own.csv").write_text("name,image,dx\na,b,c\n"),
                        r"missing columns \['id'\]; found \['name', 'image', 'dx'\]; expected id"),
    "not UTF-8": (lambda f: (f / "own.csv").write_bytes(b"id,image\n\xff,b\n"), "a CSV in UTF-8"),
    "more cells than columns": (lambda f: (f / "own.csv").write_text("id,image\na,b\nc,d,e,f\n"),
                                r"more cells than the 2 column names: 1 rows \(line 3\)"),
    "more cells in all rows": (lambda f: (f / "own.csv").write_text("id,image\na,b,c\nd,e,f\n"),
                               r"more cells than the 2 column names: 2 rows \(line 2, line 3"),
    "a quote that swallows rows": (
        lambda f: (f / "own.csv").write_text(
            'id,image,label,note\na,0.png,NV,"x\nb,1.png,NV,\nc,2.png,NV,"y\nd,3.png,NV,\n'
        ),
        "line 4: cannot be read as a table .*begins with a quote must end with one",
    ),
    "a quoted line break in an id": (
        lambda f: (f / "own.csv").write_text('id,image,patient_id\na,0.png,"p\rq"\n'),
        r"line breaks or other control characters in patient_id: 1 rows \(a\)",
    ),
    "columns of one name below a quoted line break": (
        lambda f: (f / "own.csv").write_text('"a\nb",id,id,image\n1,a,b,0.png\n'),
        r"names that occur more than once: 1 names \(id\)",
    ),
    "two columns of one name": (lambda f: (f / "own.csv").write_text("id,image,id\na,b,c\n"),
                                r"names that occur more than once: 1 names \(id\)"),
}  # fmt: skip


@pytest.mark.parametrize("fault", WHOLE)
def test_a_table_that_is_none_is_told(clinic, monkeypatch, fault):
    folder, frame = clinic
    spoil, message = WHOLE[fault]
    write = pd.DataFrame.to_csv

    def written(self, path, **options):
        write(self, path, **options)
        spoil(folder)

    monkeypatch.setattr(pd.DataFrame, "to_csv", written)
    with pytest.raises(ValueError, match=message):
        prepare(folder, frame)
    assert not (folder / "out").exists()


FOLDER = {
    "DICOM": (("MEL/a.dcm", "NV/b.DCM"), r"\.dcm images: 2 files \(MEL/a.dcm, NV/b.DCM\); .*PNG"),
    "DICOM without extension": (("MEL/IM01", "NV/1.2.84"), r"\.dcm images: 2 files .MEL/IM01, NV"),
    "HEIC": (("MEL/a.heic",), r"\.heic images: 1 files \(MEL/a.heic\); convert them to JPEG"),
    "unknown classes": (("wart/a.png", "wart/b.png"), r"unknown labels: 2 rows \(a, b\); use one"),
    "outside any class": (("a.png",), r"neither label nor mask: 1 rows \(a\)"),
    "one name in two folders": (("MEL/a.png", "NV/a.jpg"), r"same name in different fold.*: 2 im"),
    "a mask alone": (("MEL/a_mask.png",), r"masks without an image beside them: 1 masks"),
    "two masks": (("MEL/a.png", "MEL/a_mask.png", "MEL/a_segmentation.png"),
                  "more than one mask for an image: 1 images"),
    "blanks in names": (("MEL/a b.png",), r"other characters than letters.*: 1 rows \(a b\)"),
    "splits for some": (("train/MEL/a.png", "test/NV/b.png"),
                        r"splits: auto, but 24 of 26 images have no split .* state .*t.* 1"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FOLDER)
def test_a_fault_in_a_folder_is_told_with_its_count(tmp_path, fault):
    names, message = FOLDER[fault]
    good = [f"{('MEL', 'NV')[k % 2]}/i{k}.png" for k in range(COUNT)]
    for name in (*good, *names):
        (tmp_path / "clinic" / name).parent.mkdir(parents=True, exist_ok=True)
        if not name.endswith((".png", ".jpg")):
            (tmp_path / "clinic" / name).write_bytes(DICOM)
        else:
            (outline() if "_" in name else photograph()).save(tmp_path / "clinic" / name)
    with pytest.raises(ValueError, match=message):
        run(
            Config(
                source="folder",
                folder=str(tmp_path / "clinic"),
                classes=("MEL", "NV"),
                tasks=("classification",),
                size=32,
                out=tmp_path / "out",
            )
        )
    assert not (tmp_path / "out").exists()


def deep(path):
    Image.fromarray(RNG.integers(0, 65536, (40, 48)).astype(np.uint16)).save(path)


# What is converted: the file, what summary.json counts it as, and the mask that fits it.
CONVERTED = {
    "16-bit gray PNG": ("3.png", deep, "16 bits a channel reduced to 8"),
    "16-bit gray TIFF": ("3.tif", deep, "16 bits a channel reduced to 8"),
    "RGBA": ("3.png", lambda p: photograph().convert("RGBA").save(p), None),
    "transparent RGBA": ("3.png", lambda p: Image.new("RGBA", (48, 40), (9, 9, 9, 50)).save(p),
                         "transparency laid on white"),
    "gray": ("3.png", lambda p: photograph().convert("L").save(p), None),
    "1 bit": ("3.png", lambda p: photograph().convert("1").save(p), None),
    "palette": ("3.png", lambda p: photograph().quantize(16).save(p), None),
    "CMYK": ("3.jpg", lambda p: photograph().convert("CMYK").save(p), "CMYK converted to RGB"),
    "EXIF orientation": ("3.jpg", turned, "turned as EXIF says"),
    "BMP": ("3.bmp", lambda p: photograph().save(p), None),
    "WebP": ("3.webp", lambda p: photograph().save(p), None),
}  # fmt: skip


@pytest.mark.parametrize("kind", CONVERTED)
def test_other_kinds_of_images_are_converted_and_counted(clinic, kind):
    folder, frame = clinic
    name, save, change = CONVERTED[kind]
    named(3, name, save)(folder, frame)
    if kind == "EXIF orientation":
        # A mask is drawn on the image as it looks: upright, 40 x 48 px.
        outline((40, 48)).save(folder / "3_mask.png")
    found = prepare(folder, frame)
    told = json.loads((folder / "out/summary.json").read_text())
    assert len(found) == COUNT and told["changes"] == ({change: 1} if change else {})
    with Image.open(folder / "out" / found.loc["i03", "image"]) as image:
        assert (image.mode, image.size) == ("RGB", (32, 32))


@pytest.mark.parametrize("fill", ["inverted", "full"])
def test_masks_that_look_inverted_are_a_warning(clinic, caplog, fill):
    folder, frame = clinic
    for k in range(COUNT):
        mask = 255 - np.asarray(outline()) if fill == "inverted" else np.full((40, 48), 255)
        Image.fromarray(mask.astype(np.uint8)).save(folder / f"{k}_mask.png")
    prepare(folder, frame, fit="squash")
    (warning,) = [r.getMessage() for r in caplog.records if r.getMessage().startswith("masks:")]
    # 20 x 26 of 40 x 48 px are lesion, or all.
    share, full = ("73 %", "0 of 24") if fill == "inverted" else ("100 %", "24 of 24")
    assert f"covers {share} of its image, and {full} masks mark every pixel" in warning
    caplog.clear()
    for k in range(COUNT):
        outline().save(folder / f"{k}_mask.png")
    prepare(folder, frame, fit="squash")
    assert not [record for record in caplog.records if record.getMessage().startswith("masks:")]


def test_images_in_which_little_is_left_are_a_warning_with_names(clinic, caplog):
    folder, frame = clinic
    prepare(folder, frame)
    assert "little of a lesion" not in caplog.text
    photograph((31, 31)).save(folder / "3.png")
    photograph((400, 60)).save(folder / "5.png")
    frame.loc[[3, 5], "mask"] = ""
    prepare(folder, frame)
    assert "2 of 24 images have a side of less than 32 px" in caplog.text
    assert "i03 (31x31)" in caplog.text and "i05 (400x60)" in caplog.text


def test_left_out_rows_are_counted_in_the_summary(clinic, caplog):
    folder, frame = clinic
    frame.loc[[4, 5], ["label", "mask"]] = ["unclear", ""]
    frame.loc[6, "label"] = "unclear"
    frame.loc[[7, 9], "label"] = "DF"
    with caplog.at_level("INFO"):
        found = prepare(folder, frame, labels={"unclear": None})
    told = json.loads((folder / "out/summary.json").read_text())
    assert told["n_source"] == COUNT and told["n_images"] == COUNT - 4 == len(found)
    left = {why: n for why, n in told["left_out"].items() if n}
    assert left == {"other classes": 2, "data.labels gives them no class": 2}
    assert "2 of 24 images left out: data.labels gives them no class" in caplog.text
    assert found.loc["i06", "label"] == "" and found.loc["i06", "mask"]
