import numpy as np
import pandas as pd
import pytest

from didgen.data.manifest import SYNTHETIC_COLUMNS, read_manifest, write_manifest
from didgen.runtime.files import sha256_file, write_png
from didgen.stages import augment


def synthetic_set(folder, names, paired):
    rng = np.random.default_rng(len(names))
    rows = []
    for name in names:
        image, mask = f"images/{name}.png", f"masks/{name}.png" if paired else ""
        write_png(folder / image, rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
        row = {"id": name, "image": image, "mask": mask, "label": "MEL", "split": "train"}
        row |= {"lesion_id": "", "patient_id": "", "source": "synthetic", "width": 32, "height": 32}
        row |= dict.fromkeys(SYNTHETIC_COLUMNS, "x") | {"seed": 1}
        row["sha256"] = sha256_file(folder / image)
        if paired:
            row["condition"] = f"conditions/{name}.png"
            for place in (mask, row["condition"]):
                write_png(folder / place, np.eye(32, dtype=bool))
        rows.append(row)
    write_manifest(pd.DataFrame(rows), folder / "metadata.csv")
    return folder


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*.png")}


def test_a_second_run_leaves_only_what_it_lists(tmp_path):
    first = synthetic_set(tmp_path / "first", ["a", "b"], paired=False)
    pairs = synthetic_set(tmp_path / "pairs", ["p", "q"], paired=True)
    out = tmp_path / "out"
    augment.run(augment.Config(images=(first,), pairs=(pairs,), out=out))
    assert files(out) == files(first) | files(pairs)
    write_png(out / "notes/mine.png", np.eye(4, dtype=bool))

    second = synthetic_set(tmp_path / "second", ["b", "c", "d"], paired=False)
    fewer = synthetic_set(tmp_path / "fewer", ["q"], paired=True)
    augment.run(augment.Config(images=(second,), pairs=(fewer,), out=out))
    assert files(out) == files(second) | files(fewer) | {"notes/mine.png"}
    assert read_manifest(out / "metadata.csv")["id"].tolist() == ["b", "c", "d", "q"]
    # The first sets' own files share their bytes with the removed ones, and stay.
    assert files(first) == {"images/a.png", "images/b.png"}
    assert (out / "images/b.png").samefile(second / "images/b.png")


@pytest.mark.parametrize("column", ["image", "mask", "condition"])
@pytest.mark.parametrize("name", ["../mine.png", "images/../../mine.png", "{}/mine.png"])
def test_a_table_cannot_name_files_outside_its_folder(tmp_path, column, name):
    pairs = synthetic_set(tmp_path / "pairs", ["a", "b"], paired=True)
    name = name.format(tmp_path)
    (tmp_path / "mine.png").write_bytes(b"mine")
    table = pd.read_csv(pairs / "metadata.csv")
    table.loc[0, column] = name
    table.to_csv(pairs / "metadata.csv", index=False)
    with pytest.raises(ValueError, match="paths that leave the folder: 1"):
        augment.run(augment.Config(pairs=(pairs,), out=tmp_path / "out"))
    assert (tmp_path / "mine.png").read_bytes() == b"mine" and not (tmp_path / "out").exists()


@pytest.mark.parametrize("column", ["image", "mask", "condition"])
def test_a_link_to_a_file_that_is_no_image_is_not_gathered(tmp_path, column):
    pairs = synthetic_set(tmp_path / "pairs", ["a"], paired=True)
    secret = tmp_path / "netrc"
    secret.write_text("password hunter2")
    link = pairs / pd.read_csv(pairs / "metadata.csv")[column][0]
    link.unlink()
    link.symlink_to(secret)
    with pytest.raises(ValueError, match="a.png: cannot be read as an image"):
        augment.run(augment.Config(pairs=(pairs,), out=tmp_path / "out"))
    assert not (tmp_path / "out").exists() and secret.read_text() == "password hunter2"


def test_a_word_that_is_neither_yes_nor_no_rejects_no_pair_in_silence(tmp_path):
    pairs = synthetic_set(tmp_path / "pairs", ["a", "b"], paired=True)
    judged = pd.read_csv(pairs / "metadata.csv")[["id", "sha256"]].assign(kept=["yes", "Yes"])
    judged.to_csv(tmp_path / "scores.csv", index=False)
    with pytest.raises(ValueError, match=r"scores.csv: found \['Yes'\] in the column kept"):
        augment.run(
            augment.Config(pairs=(pairs,), scores=tmp_path / "scores.csv", out=tmp_path / "out")
        )


def test_a_damaged_set_is_refused_and_removes_nothing(tmp_path):
    first = synthetic_set(tmp_path / "first", ["a", "b"], paired=False)
    out = tmp_path / "out"
    augment.run(augment.Config(images=(first,), out=out))
    second = synthetic_set(tmp_path / "second", ["c"], paired=False)
    (second / "images/c.png").unlink()
    with pytest.raises(ValueError, match="missing files"):
        augment.run(augment.Config(images=(second,), out=out))
    assert files(out) == files(first)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\0", b"\x89PNG\r\n", b'id,image\na,"b\n'])
def test_a_set_whose_table_cannot_be_read_is_named(tmp_path, content):
    first = synthetic_set(tmp_path / "first", ["a"], paired=False)
    (first / "metadata.csv").write_bytes(content)
    with pytest.raises(ValueError, match="first/metadata.csv: cannot be read as a table"):
        augment.run(augment.Config(images=(first,), out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_rows_that_share_one_file_are_refused(tmp_path):
    first = synthetic_set(tmp_path / "first", ["a", "b"], paired=False)
    table = pd.read_csv(first / "metadata.csv").assign(image="images/a.png")
    table.to_csv(first / "metadata.csv", index=False)
    with pytest.raises(ValueError, match=r"rows that share one image file: 2 \(a, b\)"):
        augment.run(augment.Config(images=(first,), out=tmp_path / "out"))


def test_ids_of_two_sets_that_differ_by_case_are_refused(tmp_path):
    sets = [synthetic_set(tmp_path / name, [name], paired=False) for name in ("a", "A")]
    with pytest.raises(ValueError, match=r"only in upper and lower case: 2 \(A, a\)"):
        augment.run(augment.Config(images=tuple(sets), out=tmp_path / "out"))


def test_two_pictures_of_one_name_are_refused(tmp_path):
    first = synthetic_set(tmp_path / "first", ["a"], paired=False)
    second = synthetic_set(tmp_path / "second", ["a"], paired=False)
    table = pd.read_csv(second / "metadata.csv").assign(id="b")
    table.to_csv(second / "metadata.csv", index=False)
    with pytest.raises(ValueError, match=r"a\.png: another file is named a\.png too"):
        augment.run(augment.Config(images=(first, second), out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_link_in_a_set_becomes_the_file_behind_it(tmp_path):
    folder = synthetic_set(tmp_path / "set", ["a"], paired=False)
    (folder / "images/a.png").rename(folder / "real.png")
    (folder / "images/a.png").symlink_to("../real.png")
    augment.run(augment.Config(images=(folder,), out=tmp_path / "out"))
    made = tmp_path / "out/images/a.png"
    assert not made.is_symlink() and made.read_bytes() == (folder / "real.png").read_bytes()
