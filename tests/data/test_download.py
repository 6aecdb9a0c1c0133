import hashlib
import logging
import os
from dataclasses import replace

import pytest

from didgen.data import download
from didgen.data.checksums import ChecksumError
from didgen.data.download import archives_folder, fetch_archives
from didgen.data.files import OutOfSpace
from didgen.data.web import DownloadError
from tests.data.mirror_files import (
    ALL,
    BIG,
    FILES,
    QUICK,
    SMALL,
    TABLE,
    archive,
    contents,
    fetch,
    one,
    sums,
    zipped,
)
from tests.data.mirror_server import MirrorServer


def digest(name):
    return hashlib.sha256(FILES[name]).hexdigest()


def test_all_files_arrive_once_and_are_not_hashed_again(server, tmp_path, monkeypatch):
    found = fetch(server, tmp_path)
    assert [file.name for file in found] == list(FILES)
    assert contents(tmp_path) == FILES and not list(tmp_path.glob("*.part*"))
    assert all(file.downloaded and file.checked_by == "first use" for file in found)
    before = list(server.requests)
    monkeypatch.setattr(download, "examine", lambda *_: pytest.fail("hashed again"))
    again = fetch(server, tmp_path)
    assert server.requests == before and not any(file.downloaded for file in again)
    assert [file.sha256 for file in again] == [
        hashlib.sha256(b).hexdigest() for b in FILES.values()
    ]


def test_missing_files_are_all_named_with_their_addresses(server, tmp_path):
    del server.files[BIG], server.files[SMALL]
    with pytest.raises(DownloadError) as caught:
        fetch(server, tmp_path)
    text = str(caught.value)
    assert text.startswith("2 of 3 archives cannot be used")
    for name in (BIG, SMALL):
        assert f"{server.url}/{name}: no such file (status 404)" in text
        assert f"put the file at {tmp_path / name}" in text
    assert not server.sent[TABLE]


def test_the_second_bucket_serves_what_the_first_has_not(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "BUCKETS", (f"{server.url}/none", server.url))
    pinned = archive(SMALL, digest(SMALL))
    found = fetch_archives((pinned,), tmp_path, patience=QUICK)[0]
    assert (found.origin, found.checked_by) == (f"{server.url}/{SMALL}", "the catalog")
    with pytest.raises(DownloadError) as caught:
        fetch_archives((replace(pinned, name="gone.zip"),), tmp_path, patience=QUICK)
    assert f"{server.url}/none/gone.zip: " in str(caught.value)
    assert f"{server.url}/gone.zip: " in str(caught.value)


def test_wrong_bytes_are_deleted_and_named(server, tmp_path):
    server.files["SHA256SUMS"] = sums()
    server.faults[SMALL] = [("wrong",)]
    with pytest.raises(DownloadError) as caught:
        fetch(server, tmp_path)
    text = str(caught.value)
    assert text.startswith(
        f"1 of 3 archives cannot be used:\n  {SMALL} from {server.url}/{SMALL}: "
    )
    assert f"expected {digest(SMALL)}, as SHA256SUMS of {server.url} says; the bytes were" in text
    # The others are there, and the next try gets this one.
    assert set(contents(tmp_path)) == {BIG, TABLE} and not list(tmp_path.glob("*.part*"))
    assert [file.downloaded for file in fetch(server, tmp_path)] == [False, True, False]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (SMALL, b"<html>please log in</html>", "not a readable zip archive"),
        (SMALL, FILES[SMALL][:-30], "not a readable zip archive"),
        (TABLE, b"<!DOCTYPE html><html>", "found a web page, expected a table"),
    ],
)
def test_what_is_no_archive_is_never_recorded(server, tmp_path, name, content, message):
    server.files[name] = content
    with pytest.raises(DownloadError, match=message):
        one(server, tmp_path, name)
    assert not (tmp_path / name).exists() and not (tmp_path / "archives.lock.json").exists()


def test_a_changed_file_is_caught_by_the_record_of_its_first_use(server, tmp_path):
    one(server, tmp_path, SMALL)
    path = tmp_path / SMALL
    os.utime(path, ns=(1, 1))
    assert one(server, tmp_path, SMALL).checked_by == "first use"
    path.write_bytes(zipped(5000, seed=3))
    with pytest.raises(DownloadError, match=r"found SHA-256 .*archives.lock.json says"):
        one(server, tmp_path, SMALL)
    # Removed, it is fetched again, but only with the bytes it had.
    path.unlink()
    server.files[SMALL] = zipped(5000, seed=3)
    with pytest.raises(DownloadError, match=r"as archives.lock.json says; the bytes were deleted"):
        one(server, tmp_path, SMALL)


def test_another_mirror_does_not_silently_replace_the_first(server, tmp_path):
    one(server, tmp_path, SMALL)
    with MirrorServer({SMALL: zipped(9, 4), "SHA256SUMS": sums({SMALL: zipped(9, 4)})}) as other:
        (tmp_path / SMALL).unlink()
        with pytest.raises(DownloadError, match="choose another folder for this mirror"):
            one(other, tmp_path, SMALL)


def test_a_folder_is_used_in_place(tmp_path):
    mirror, own = tmp_path / "mirror", tmp_path / "own"
    mirror.mkdir()
    for name, content in FILES.items():
        (mirror / name).write_bytes(content)
    found = fetch_archives(ALL, own, str(mirror), offline=True)
    assert [file.path for file in found] == [mirror / name for name in FILES]
    assert sorted(path.name for path in mirror.iterdir()) == sorted(FILES)
    assert [path.name for path in own.glob("[!.]*")] == ["archives.lock.json"]
    assert archives_folder(str(mirror), own) == mirror and archives_folder(None, own) == own
    (mirror / TABLE).write_bytes(b"image,lesion_id\n")
    with pytest.raises(DownloadError, match="1 of 3 archives cannot be used"):
        fetch_archives(ALL, own, str(mirror))
    (mirror / TABLE).unlink()
    with pytest.raises(DownloadError) as caught:
        fetch_archives(ALL, own, str(mirror))
    assert str(caught.value).startswith(
        f"1 of 3 archives are missing (the mirror is the folder {mirror}):\n  put it at "
        f"{mirror / TABLE} ; it comes from https://isic-archive.s3.amazonaws.com/"
    )


def test_offline_names_each_missing_file_its_place_and_its_address(server, tmp_path, monkeypatch):
    one(server, tmp_path, SMALL)
    before = list(server.requests)
    with pytest.raises(DownloadError) as caught:
        fetch(server, tmp_path, offline=True)
    assert str(caught.value).startswith("2 of 3 archives are missing (offline):")
    assert f"put it at {tmp_path / BIG} ; it comes from {server.url}/{BIG}" in str(caught.value)
    assert one(server, tmp_path, SMALL, offline=True).path == tmp_path / SMALL
    assert server.requests == before
    pinned = archive(BIG, "ab" * 32)
    with pytest.raises(DownloadError, match=f"https://isic-archive.* its SHA-256 is {'ab' * 32}"):
        fetch_archives((pinned,), tmp_path, offline=True)


def test_a_full_disk_stops_it_before_the_first_byte(server, tmp_path, monkeypatch):
    full = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: full)
    with pytest.raises(OutOfSpace, match=r"3 archives need 1.05 MB more, found 1 kB free"):
        fetch(server, tmp_path)
    assert not server.sent


def test_secrets_in_an_address_are_used_but_never_written(server, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    secret = server.url.replace("http://", "http://me:hush@") + "?key=hush"
    server.faults[SMALL] = [("status", 503, {}), ("drop", 9)]
    fetch_archives((archive(SMALL),), tmp_path, secret, patience=QUICK)
    assert all(value and value.startswith("Basic ") for value in server.authorizations)
    del server.files[SMALL]
    (tmp_path / SMALL).unlink()
    with pytest.raises(DownloadError) as caught:
        fetch_archives((archive(SMALL),), tmp_path, secret, patience=QUICK)
    with pytest.raises(DownloadError) as refused:
        away = secret.replace(server.url[7:16], "nowhere.invalid")
        fetch_archives((archive(SMALL),), tmp_path, away, patience=QUICK)
    written = "".join(path.read_text() for path in tmp_path.glob("*.json"))
    for text in (caplog.text, str(caught.value), str(refused.value), written):
        assert "hush" not in text
    assert server.url in written


@pytest.mark.parametrize("mirror", ["ftp://host/x", "file:///data", "s3://bucket"])
def test_only_web_addresses_and_folders_are_mirrors(tmp_path, mirror):
    with pytest.raises(DownloadError, match="expected http://, https:// or the path of a folder"):
        fetch_archives(ALL, tmp_path, mirror)
    with pytest.raises(DownloadError, match="is no folder"):
        fetch_archives(ALL, tmp_path, str(tmp_path / "none"))


def test_damaged_records_and_lists_are_named(server, tmp_path):
    server.files["SHA256SUMS"] = b"<html>\n" + sums()
    with pytest.raises(ChecksumError, match=r"SHA256SUMS: 1 of 4 lines are no checksum"):
        fetch(server, tmp_path)
    del server.files["SHA256SUMS"]
    (tmp_path / "archives.lock.json").write_text("{")
    with pytest.raises(ChecksumError, match="not a lock file of this program"):
        fetch(server, tmp_path)
