"""Folders that cannot be read as they stand: permissions, pipes, links, names."""

import inspect
import os
import socket
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from didgen.data.changes import folder_state, table_state, walk
from didgen.data.images import ImageError, read_image
from didgen.data.sources.own import folder_records, own_records
from didgen.data.sources.records import SourceError

pytestmark = pytest.mark.timeout(60)
NOBODY = 65534


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path, "PNG")


@pytest.fixture
def clinic(tmp_path):
    for name in ("MEL/a.png", "NV/b.png", "NV/deep/NV/c.png"):
        picture(tmp_path / "clinic" / name)
    return tmp_path / "clinic"


def without_privileges(work):
    """What `work` returns in a process that may read only what it is allowed to; root may all."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            answer = work()
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(theirs, answer.encode())
        os._exit(0)
    os.close(theirs)
    os.waitpid(child, 0)
    with os.fdopen(ours) as stream:
        return stream.read()


def test_a_folder_that_may_not_be_read_is_no_empty_one():
    # pytest's own folders are closed to other users.
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        root.chmod(0o755)
        for k in range(48):
            picture(root / "clinic" / ("MEL", "NV")[k % 2] / f"i{k}.png")
        count = lambda: str(len(folder_records(root / "clinic")))  # noqa: E731
        assert without_privileges(count) == "48"
        before = without_privileges(lambda: folder_state(root / "clinic"))
        (root / "clinic/NV").chmod(0)
        answer = without_privileges(count)
        assert answer.startswith("SourceError") and "cannot be listed: 1 folders" in answer
        assert f"{root}/clinic/NV: Permission denied" in answer
        assert without_privileges(lambda: folder_state(root / "clinic")) != before
        (root / "clinic/NV").chmod(0o755)
        (root / "clinic/NV/i1.png").chmod(0)
        answer = without_privileges(lambda: str(read_image(root / "clinic/NV/i1.png").shape))
        assert answer.startswith("ImageError") and "Permission denied" in answer


def pipe(path):
    os.mkfifo(path)


def unix_socket(path):
    # Its address must be short.
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(here)


def device(path):
    path.symlink_to("/dev/zero")


def broken_link(path):
    path.symlink_to("gone")


def link_to_itself(path):
    path.symlink_to(path.name)


SPECIAL = (pipe, unix_socket, device, broken_link, link_to_itself)


@pytest.mark.parametrize("make", SPECIAL)
@pytest.mark.parametrize("name", ["x.png", "x_mask.png", "x.csv", "x.dcm"])
def test_what_is_named_as_data_but_is_no_file_is_refused(clinic, make, name):
    make(clinic / "NV" / name)
    with pytest.raises(SourceError, match=rf"pipes, sockets or devices.*: 1 files .*NV/{name}"):
        folder_records(clinic)
    assert len(folder_state(clinic)) == 64


@pytest.mark.parametrize("make", SPECIAL)
def test_other_files_that_are_none_are_counted_and_never_opened(clinic, caplog, make):
    make(clinic / "NV" / "agent")
    with caplog.at_level("INFO"):
        assert [record.id for record in folder_records(clinic)] == ["a", "b", "c"]
    assert "1 files left aside" in caplog.text


@pytest.mark.parametrize("make", SPECIAL)
def test_an_image_that_is_no_file_is_not_waited_for(tmp_path, make):
    make(tmp_path / "x.png")
    with pytest.raises(ImageError, match=r"x\.png: "):
        read_image(tmp_path / "x.png")
    make(tmp_path / "own.csv")
    with pytest.raises(SourceError, match="no such table"):
        own_records(tmp_path / "own.csv")
    assert len(table_state(tmp_path / "own.csv")) == 64


def test_one_folder_under_two_names_has_no_two_classes(clinic):
    (clinic / "BCC").symlink_to(clinic / "NV")
    with pytest.raises(SourceError, match="1 folders .*/NV: the same folder as .*/BCC"):
        folder_records(clinic)


def test_links_back_up_are_not_followed(clinic, tmp_path):
    (clinic / "NV/up").symlink_to(clinic)
    (clinic / "NV/deep/self").symlink_to(".")
    (tmp_path / "elsewhere").mkdir()
    picture(tmp_path / "elsewhere/d.png")
    (clinic / "DF").symlink_to(tmp_path / "elsewhere")
    (clinic / "DF/back").symlink_to(clinic)
    records = {record.id: record.label for record in folder_records(clinic)}
    assert records == {"a": "MEL", "b": "NV", "c": "NV", "d": "DF"}


def test_a_file_that_two_links_lead_to_counts_for_each(clinic):
    (clinic / "MEL/e.png").symlink_to(clinic / "NV/b.png")
    assert {record.id for record in folder_records(clinic)} == {"a", "b", "c", "e"}


@pytest.mark.parametrize("name", [b"\xff.png", b"\xff/x.png", b"\xff_mask.png", b"\xff.csv"])
def test_names_that_are_no_utf8_are_refused_in_words(clinic, name):
    path = Path(os.fsdecode(os.fsencode(clinic / "NV") + b"/" + name))
    picture(path)
    with pytest.raises(SourceError, match="names that are not UTF-8: 1 files") as caught:
        folder_records(clinic)
    assert str(caught.value).isprintable()
    assert len(folder_state(clinic)) == 64


def test_no_control_character_of_a_name_reaches_the_terminal(clinic):
    picture(clinic / "\x1b[2J/\x1b[31mx.png")
    with pytest.raises(SourceError) as caught:
        folder_records(clinic)
    assert str(caught.value).isprintable() and "\\x1b[31mx" in str(caught.value)


def test_a_tree_deeper_than_paths_may_be_is_walked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["d"] * 200 + ["d" * 250] * 16
    for name in names:
        os.mkdir(name)
        os.chdir(name)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 100)
    try:
        assert list(walk(tmp_path).unreadable.values()) == ["File name too long"]
    finally:
        sys.setrecursionlimit(limit)
        # Too deep for shutil, with which pytest cleans up.
        for name in reversed(names):
            os.chdir("..")
            os.rmdir(name)


@pytest.mark.parametrize("look", [folder_state, table_state])
def test_a_path_with_nul_has_a_state(look):
    assert len(look("a\0b")) == 64


def test_files_that_vanish_while_they_are_read_are_named(clinic):
    record = folder_records(clinic)[0]
    record.pixels.image.unlink()
    with pytest.raises(ImageError, match=r"a\.png: no such file"):
        record.pixels.read(32)
