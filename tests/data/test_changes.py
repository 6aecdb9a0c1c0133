import os

import pytest

from didgen.data.changes import folder_state, local_archives, source_state, table_state


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photographs"
    for name in ("MEL/a.jpg", "NV/b.png", "NV/b_mask.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def touch_later(path):
    later = path.stat().st_mtime_ns + 10**9
    os.utime(path, ns=(later, later))


CHANGES = {
    "edited in place, size kept": lambda d: touch_later(d / "MEL/a.jpg"),
    "longer": lambda d: (d / "MEL/a.jpg").write_bytes(b"longer"),
    "added": lambda d: (d / "MEL/c.jpg").write_bytes(b"c"),
    "removed": lambda d: (d / "NV/b_mask.png").unlink(),
    "moved to another class": lambda d: (d / "MEL/a.jpg").rename(d / "NV/a.jpg"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_below_a_folder_changes_its_state(photographs, change):
    before = folder_state(photographs)
    assert folder_state(photographs) == before and len(before) == 64
    CHANGES[change](photographs)
    assert folder_state(photographs) != before


def test_what_no_source_reads_changes_nothing(photographs):
    before = folder_state(photographs)
    (photographs / ".DS_Store").write_bytes(b"x")
    (photographs / ".cache").mkdir()
    (photographs / ".cache" / "thumb.jpg").write_bytes(b"x")
    (photographs / "empty").mkdir()
    assert folder_state(photographs) == before
    # Nor does it matter where the folder lies, or how its path is written.
    moved = photographs.rename(photographs.with_name("elsewhere"))
    assert folder_state(moved) == before == folder_state(f"{moved}/NV/..")


def test_links_are_followed_and_never_walked_for_ever(photographs, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "c.jpg").write_bytes(b"c")
    (photographs / "DF").symlink_to(tmp_path / "other")
    (photographs / "NV" / "back").symlink_to(photographs)
    before = folder_state(photographs)
    touch_later(tmp_path / "other" / "c.jpg")
    assert folder_state(photographs) != before


@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_a_table_stands_for_the_files_that_it_names(photographs, separator):
    table = photographs / "own.csv"
    rows = [["isic_id", " file", "outline"], ["a", "MEL/a.jpg", ""], ["b", "NV/b.png", "gone.png"]]
    table.write_text("\ufeff" + "\n".join(separator.join(row) for row in rows) + "\n")
    columns = {"id": "isic_id", "image": "file", "mask": "outline"}
    before = table_state(table, columns)
    (photographs / "NV/other.png").write_bytes(b"not named")
    touch_later(photographs / "NV/b_mask.png")
    assert table_state(table, columns) == before
    states = {before}
    for change in (
        lambda: touch_later(photographs / "MEL/a.jpg"),
        lambda: (photographs / "gone.png").write_bytes(b"there now"),
        lambda: touch_later(table),
    ):
        change()
        states.add(table_state(table, columns))
    assert len(states) == 4


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b'id,image\n"a,b\n'])
def test_a_table_that_cannot_be_read_has_a_state(tmp_path, content):
    table = tmp_path / "own.csv"
    absent = table_state(table)
    table.write_bytes(content)
    assert table_state(table) != absent
    assert folder_state(tmp_path / "none") == folder_state(tmp_path / "nor this")


def test_the_state_of_a_source_is_that_of_what_it_names(photographs):
    table = photographs / "own.csv"
    table.write_text("id,picture\na,MEL/a.jpg\n")
    none = {"source": "phantoms", "folder": None, "table": None, "columns": {}}
    assert source_state(none) == ""
    assert source_state(none | {"source": "folder", "folder": str(photographs)}) == folder_state(
        photographs
    )
    columns = {"image": "picture"}
    own = none | {"source": "table", "table": str(table), "columns": columns}
    assert source_state(own) == table_state(table, columns) != table_state(table)


def test_archives_of_a_mirror_that_the_splits_need(tmp_path):
    training, test = (f"ISIC2018_Task3_{part}_Input.zip" for part in ("Training", "Test"))
    for name in (training, test, "other.zip"):
        (tmp_path / name).touch()
    data = {"mirror": str(tmp_path), "splits": "grouped"}
    assert local_archives(data) == [str(tmp_path / training)]
    official = local_archives(data | {"splits": "official"})
    assert set(official) == {str(tmp_path / name) for name in (training, test)}
    assert local_archives(data | {"mirror": "https://example.org/isic"}) == []
    assert local_archives(data | {"mirror": None}) == []
