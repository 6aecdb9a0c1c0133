import multiprocessing
import os
import stat
import tracemalloc
import zipfile

import pytest

from didgen.data.archives import ArchiveError, Limits, check_archive, members, read_member


def make(path, *names, content=b"x", method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name in names:
            archive.writestr(name, content)
    return path


def test_members_are_listed_and_read_in_place(tmp_path):
    names = ("a/ISIC_1.jpg", "a/ISIC_2.JPG", "a/LICENSE.txt", "__MACOSX/a/._ISIC_1.jpg")
    path = make(tmp_path / "a.zip", "a/", *names, content=b"bytes")
    assert check_archive(path) == 4
    assert members(path, ".jpg") == ["a/ISIC_1.jpg", "a/ISIC_2.JPG"]
    assert read_member(path, "a/ISIC_2.JPG") == b"bytes"
    assert os.listdir(tmp_path) == ["a.zip"]


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../up.jpg", "a/../../up.jpg", "a\\..\\up.jpg", "\\\\host\\x.jpg", "C:/x.jpg",
     "c:x.jpg", ".."],
)  # fmt: skip
def test_names_that_lead_out_are_refused(tmp_path, name):
    path = make(tmp_path / "a.zip", "fine.jpg", name)
    with pytest.raises(ArchiveError, match="lead out of the archive's folder: 1 of 2 members"):
        members(path)
    with pytest.raises(ArchiveError, match="lead out"):
        read_member(path, "fine.jpg")


def test_dots_inside_a_name_are_no_escape(tmp_path):
    assert check_archive(make(tmp_path / "a.zip", "a..b/c...jpg", "...")) == 2


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_special_files_are_refused(tmp_path, kind):
    entry = zipfile.ZipInfo("link.jpg")
    entry.create_system, entry.external_attr = 3, (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(ArchiveError, match=r"links or special files: 1 of 1 members \('link.jpg'"):
        check_archive(tmp_path / "a.zip")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("names", [("a.jpg", "a.jpg"), ("x/a.jpg", "x//a.jpg"), ("a", "./a")])
def test_names_that_repeat_are_refused(tmp_path, names):
    with pytest.raises(ArchiveError, match="more than once: 1 of 2 members"):
        check_archive(make(tmp_path / "a.zip", *names))


def test_encrypted_archives_are_refused(tmp_path):
    path = make(tmp_path / "a.zip", "a.jpg", "b.jpg")
    whole = bytearray(path.read_bytes())
    # The flags of the first entry of the directory.
    whole[whole.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(whole)
    with pytest.raises(ArchiveError, match=r"encrypted: 1 of 2 members \('a.jpg'\)"):
        check_archive(path)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = make(tmp_path / "a.zip", "bomb.csv", content=bytes(1 << 23), method=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10_000
    with pytest.raises(ArchiveError, match="packed more than 100 to 1: 1 of 1 members"):
        read_member(path, "bomb.csv")


def test_a_member_that_understates_its_size_is_not_unpacked(tmp_path):
    path = make(tmp_path / "a.zip", "a.csv", content=bytes(1 << 26), method=zipfile.ZIP_DEFLATED)
    true, false = ((1 << 26).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    assert path.read_bytes().count(true) == 2  # the local header and the directory
    path.write_bytes(path.read_bytes().replace(true, false))
    assert check_archive(path) == 1
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveError, match="CRC"):
            read_member(path, "a.csv")
        assert tracemalloc.get_traced_memory()[1] < 1 << 22
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_of_packing_are_refused(tmp_path, method):
    path = make(tmp_path / "a.zip", "a.csv", content=b"x" * 100, method=method)
    with pytest.raises(ArchiveError, match="stored or deflated: 1 of 1"):
        check_archive(path)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(member=10), "files of more than 10 bytes: 3 of 3"),
        (Limits(total=30), "found 3 members of 36 bytes in all, expected at most"),
        (Limits(members=2), "found 3 members of 36 bytes in all, expected at most 2"),
    ],
)
def test_sizes_have_limits(tmp_path, limits, message):
    path = make(tmp_path / "a.zip", "a", "b", "c", content=b"twelve bytes")
    with pytest.raises(ArchiveError, match=message):
        check_archive(path, limits)


def test_members_that_share_bytes_are_refused(tmp_path):
    path = make(tmp_path / "a.zip", "a", "b", content=b"y" * 100)
    whole = bytearray(path.read_bytes())
    second = whole.rindex(b"PK\x01\x02")
    whole[second + 42 : second + 46] = (10).to_bytes(4, "little")
    path.write_bytes(whole)
    with pytest.raises(ArchiveError, match="share their bytes: 1 of 2 members"):
        check_archive(path)


@pytest.mark.parametrize("content", [b"", b"<html>no such page</html>", b"PK\x03\x04 cut"])
def test_what_is_no_archive_is_named(tmp_path, content):
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(ArchiveError, match="a.zip: not a readable zip archive"):
        members(tmp_path / "a.zip")


def test_an_archive_that_was_replaced_is_read_anew(tmp_path):
    path = make(tmp_path / "a.zip", "a", content=b"old")
    assert read_member(path, "a") == b"old"
    make(tmp_path / "b.zip", "a", content=b"new!").replace(path)
    assert read_member(path, "a") == b"new!"
    path.unlink()
    with pytest.raises(ArchiveError, match=r"^a.zip/a: cannot be read .*no such archive"):
        read_member(path, "a")


def _read_often(path, name, expected):
    for _ in range(200):
        assert read_member(path, name) == expected


def test_forked_processes_do_not_share_a_file_position(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in "abcd":
            archive.writestr(name, name.encode() * 50_000)
    read_member(path, "a")
    fork = multiprocessing.get_context("fork")
    jobs = [fork.Process(target=_read_often, args=(path, n, n.encode() * 50_000)) for n in "abcd"]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0] * 4
