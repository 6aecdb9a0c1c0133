import hashlib
import json
import os
import shutil
import socket
import threading
import time
from dataclasses import replace

import pytest

from didgen.data import download
from didgen.data.download import ChecksumError, archives_folder, listed_folder, read_sums
from didgen.data.transfer import DownloadError, HttpClient, Patience, Unavailable, Unreachable
from didgen.runtime.files import OutOfSpace
from tests.data.mirror_files import (
    BIG,
    FILES,
    SMALL,
    TABLE,
    archive,
    contents,
    fetch,
    fetch_from,
    one,
    sums,
    zipped,
)
from tests.data.mirror_server import MirrorServer


def digest(name):
    return hashlib.sha256(FILES[name]).hexdigest()


def test_all_files_arrive_once_and_are_not_hashed_again(server, tmp_path, monkeypatch):
    found = fetch(server, tmp_path)
    assert [file.path for file in found] == [tmp_path / name for name in FILES]
    assert contents(tmp_path) == FILES and not list(tmp_path.glob("*.part*"))
    assert all(file.downloaded and file.entry.checked_by == "first use" for file in found)
    before = list(server.requests)
    monkeypatch.setattr(download, "examine", lambda *_: pytest.fail("hashed again"))
    again = fetch(server, tmp_path)
    assert server.requests == before and not any(file.downloaded for file in again)
    assert [file.entry.sha256 for file in again] == [
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
    entry = fetch_from(None, tmp_path, (pinned,))[0].entry
    assert (entry.origin, entry.checked_by) == (f"{server.url}/{SMALL}", "the catalog")
    with pytest.raises(DownloadError) as caught:
        fetch_from(None, tmp_path, (replace(pinned, name="gone.zip"),))
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
    assert one(server, tmp_path, SMALL).entry.checked_by == "first use"
    path.write_bytes(zipped(5000, seed=3))
    with pytest.raises(
        DownloadError,
        match=r"found SHA-256 .*archives.lock.json says; remove the file to fetch it again; if the "
        r"change is meant, remove its record from .*archives.lock.json, too",
    ):
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


def test_a_new_mirror_must_show_that_its_files_are_the_same(server, tmp_path):
    fetch(server, tmp_path)
    with MirrorServer(FILES | {"SHA256SUMS": sums()}) as other:
        found = fetch(other, tmp_path)
        assert not any(file.downloaded for file in found) and set(other.sent) == {"SHA256SUMS"}
        del other.files["SHA256SUMS"]
        with pytest.raises(DownloadError) as caught:
            fetch(other, tmp_path)
        assert set(other.sent) == {"SHA256SUMS"}
    text = str(caught.value)
    assert text.startswith("3 of 3 archives cannot be used:")
    assert f"{tmp_path / SMALL}: came from {server.url}/{SMALL}, and the mirror is now" in text
    assert f"{other.url}, which has no SHA256SUMS" in text and "choose another folder" in text


def test_a_new_mirror_that_cannot_be_asked_changes_nothing(server, tmp_path, caplog):
    one(server, tmp_path, SMALL)
    for offline in (True, False):
        found = fetch_from(nobody(), tmp_path, (archive(SMALL),), offline)
        assert found[0].path == tmp_path / SMALL and not found[0].downloaded
        assert found[0].entry.origin == f"{server.url}/{SMALL}"
    assert "no connection" in caplog.text and "compared with their records" in caplog.text


def nobody():
    """The address of a port that nothing listens on."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{place.getsockname()[1]}/isic"


@pytest.mark.parametrize("away", ["nobody", "http://no-such-host.invalid/isic"])
def test_without_a_network_the_remedy_comes_within_seconds(tmp_path, away):
    url, started = nobody() if away == "nobody" else away, time.monotonic()
    with pytest.raises(DownloadError) as caught:
        fetch_from(url, tmp_path, patience=Patience(first_wait=0.2))
    assert time.monotonic() - started < 20
    text = str(caught.value)
    assert text.startswith(f"3 of 3 archives are missing ({url}/") and "no connection (" in text
    assert "name a folder or a server that it reaches in data.mirror, or put the files" in text
    assert "set data.offline: true):" in text
    for name in FILES:
        assert text.count(f"put it at {tmp_path / name} ; it comes from {url}/{name}") == 1


def test_without_a_network_all_buckets_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "BUCKETS", (nobody(), nobody()))
    with pytest.raises(DownloadError) as caught:
        fetch_from(None, tmp_path, patience=Patience(first_wait=0.01))
    assert all(f"{base}/" in str(caught.value) for base in download.BUCKETS)
    # Files that were put there by hand could not be checked; offline they are taken.
    (tmp_path / TABLE).write_bytes(FILES[TABLE])
    with pytest.raises(DownloadError, match="cannot be read; .* set data.offline: true to take"):
        fetch_from(nobody(), tmp_path, (archive(TABLE),))
    found = fetch_from(nobody(), tmp_path, (archive(TABLE),), offline=True)
    assert found[0].entry.size == len(FILES[TABLE])


def test_a_server_is_given_up_at_first_contact_but_waited_for_in_a_transfer(tmp_path, caplog):
    client = HttpClient(Patience(retries=3, first_wait=0.01), threading.Event())
    with pytest.raises(Unreachable):
        client.size(nobody())
    assert caplog.text.count("trying again") == 1
    with pytest.raises(Unavailable, match="4 times in a row; run the same command again"):
        client.download(nobody(), tmp_path / "x.part", lambda done: None)
    assert caplog.text.count("trying again") == 4


def test_a_folder_is_used_in_place(tmp_path):
    mirror, own = tmp_path / "mirror", tmp_path / "own"
    mirror.mkdir()
    for name, content in FILES.items():
        (mirror / name).write_bytes(content)
    found = fetch_from(str(mirror), own, offline=True)
    assert [file.path for file in found] == [mirror / name for name in FILES]
    assert sorted(path.name for path in mirror.iterdir()) == sorted(FILES)
    assert [path.name for path in own.glob("[!.]*")] == ["archives.lock.json"]
    assert archives_folder(str(mirror), own) == mirror and archives_folder(None, own) == own
    (mirror / TABLE).write_bytes(b"image,lesion_id\n")
    with pytest.raises(
        DownloadError, match=r"1 of 3 archives cannot be used.*\n.*; restore it; if"
    ):
        fetch_from(str(mirror), own)
    (mirror / TABLE).unlink()
    with pytest.raises(DownloadError) as caught:
        fetch_from(str(mirror), own)
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
        fetch_from(None, tmp_path, (pinned,), offline=True)


def test_a_full_disk_stops_it_before_the_first_byte(server, tmp_path, monkeypatch):
    full = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(OutOfSpace, match=r"3 archives need 1.05MB more, found 1.00kB free"):
        fetch(server, tmp_path)
    assert not server.sent


def test_damaged_records_and_lists_are_named(server, tmp_path):
    server.files["SHA256SUMS"] = b"<html>\n" + sums()
    with pytest.raises(ChecksumError, match=r"SHA256SUMS: 1 of 4 lines are no checksum"):
        fetch(server, tmp_path)
    server.files["SHA256SUMS"] = b"\xff\xfe" * 40
    with pytest.raises(ChecksumError, match=r"SHA256SUMS: 1 of 1 lines are no checksum"):
        fetch(server, tmp_path)
    for nothing in (b"", b"\n# none\n"):
        server.files["SHA256SUMS"] = nothing
        with pytest.raises(ChecksumError, match=r"SHA256SUMS: is empty; expected what"):
            fetch(server, tmp_path)
    (tmp_path / "SHA256SUMS").write_bytes(b"\xff\xfe" * 40)
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ChecksumError, match=r"SHA256SUMS: 1 of 1 lines are no checksum"):
        fetch_from(str(tmp_path), tmp_path / "own")
    del server.files["SHA256SUMS"]
    for text in ("{", "[]", '{"files": 3}', '{"files": {"a": {}}}', "[" * 100_000):
        (tmp_path / "archives.lock.json").write_text(text)
        with pytest.raises(ChecksumError, match="not a lock file of this program"):
            fetch(server, tmp_path)


def test_a_folder_that_others_look_after_is_only_read(server, tmp_path, monkeypatch):
    fetch(server, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    monkeypatch.setattr(download, "sole_writer", lambda _: pytest.fail("locked"))
    monkeypatch.setattr(download, "write_json", lambda *_: pytest.fail("written"))
    fetch(server, tmp_path)
    fetch(server, tmp_path, offline=True)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("length", ["9" * 5000, "-1", "x", ""])
def test_an_absurd_length_is_none(tmp_path, length):
    answer = ("status", 200, {"Content-Length": length, "Connection": "close"})
    with MirrorServer(FILES) as server:
        server.head_faults[SMALL], server.faults[SMALL] = [answer], [answer]
        with pytest.raises(DownloadError, match="1 of 1 archives cannot be used"):
            one(server, tmp_path, SMALL)
        assert one(server, tmp_path, SMALL).downloaded


def test_a_mirror_that_is_no_folder_is_named(tmp_path):
    with pytest.raises(DownloadError, match="is no folder; correct data.mirror"):
        fetch_from(str(tmp_path / "none"), tmp_path)


def test_lists_of_checksums():
    a, b = "a" * 64, "B" * 64
    assert read_sums(f"# made by hand\n{a}  x.zip\n\n{b} *./y z.zip\n", "here") == {
        "x.zip": a,
        "y z.zip": b.lower(),
    }
    with pytest.raises(ChecksumError, match="here: 1 of 2 lines are no checksum"):
        read_sums(f"{a}  x.zip\nabc  y.zip\n", "here")
    with pytest.raises(ChecksumError, match="x.zip has two checksums"):
        read_sums(f"{a}  x.zip\n{b}  x.zip\n", "here")
    with pytest.raises(ChecksumError, match="is empty"):
        read_sums("", "here")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: (d / "a.json").write_text("{}"), "a.json: not a list of archives; expected"),
        (lambda d: (d / "a.json").unlink(), "run it again"),
        (lambda d: (d / "a.json").write_text("[" * 100_000), "not a list of archives"),
        (lambda d: (d / "x.zip").write_bytes(b"1234"), r"1 of 2 archives in .* not as .*x\.zip"),
        (lambda d: (d / "y.csv").unlink(), r"1 of 2 .* gone or .*y\.csv.* `--forcerun fetch`"),
    ],
)
def test_prepare_takes_the_archives_that_were_fetched(tmp_path, spoil, message):
    for name in ("x.zip", "y.csv"):
        (tmp_path / name).write_bytes(b"123")
    files = [{"path": str(tmp_path / name), "size": 3} for name in ("x.zip", "y.csv")]
    listing = tmp_path / "a.json"
    listing.write_text(json.dumps({"folder": str(tmp_path), "files": files}))
    assert listed_folder(listing) == tmp_path
    spoil(tmp_path)
    with pytest.raises(DownloadError, match=message):
        listed_folder(listing)


@pytest.mark.parametrize("name", ["notes", "notes/deep"])
def test_a_file_in_the_place_of_the_folder_of_downloads_is_named(server, tmp_path, name):
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(ValueError, match="notes.*: found a file or a broken link at .*notes, expe"):
        fetch(server, tmp_path / name)
    assert (tmp_path / "notes").read_text() == "mine" and not server.requests


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_what_lies_in_the_place_of_the_records_is_named_before_a_download(server, tmp_path, kind):
    place = tmp_path / "archives.lock.json"
    place.mkdir() if kind == "folder" else place.symlink_to(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"archives\.lock\.json: not a lock file of this program"):
        fetch(server, tmp_path)
    assert os.path.lexists(place) and not any(server.sent[name] for name in FILES)
