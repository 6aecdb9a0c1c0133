import hashlib
import logging
import os
import shutil
import socket
import threading
import time
from dataclasses import replace

import pytest

from didgen.data import download, mirror
from didgen.data.checksums import ChecksumError
from didgen.data.download import fetch_archives
from didgen.data.mirror import archives_folder
from didgen.data.transfer import Client, Patience
from didgen.data.web import DownloadError, Unavailable, Unreachable
from didgen.runtime.files import OutOfSpace
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
    monkeypatch.setattr(mirror, "BUCKETS", (f"{server.url}/none", server.url))
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


def test_a_new_mirror_of_the_same_bytes_is_told_from_its_checksums(server, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    fetch(server, tmp_path)
    with MirrorServer(FILES | {"SHA256SUMS": sums()}) as other:
        found = fetch(other, tmp_path)
        assert not any(file.downloaded for file in found) and set(other.sent) == {"SHA256SUMS"}
        came = f"{tmp_path / SMALL}: came from {server.url}/{SMALL}, and the mirror is now "
        assert f"{came}{other.url}: the same SHA-256, as SHA256SUMS of {other.url}" in caplog.text


def test_a_new_mirror_without_checksums_is_compared_by_size(server, tmp_path, caplog):
    fetch(server, tmp_path)
    with MirrorServer(FILES | {SMALL: zipped(6000, 1)}) as other:
        assert one(other, tmp_path, BIG).downloaded is False
        assert f"{other.url}: the same size, {len(FILES[BIG])} bytes, there" in caplog.text
        with pytest.raises(DownloadError) as caught:
            fetch(other, tmp_path)
        assert not other.sent
    text = str(caught.value)
    assert text.startswith("1 of 3 archives cannot be used:") and f"{tmp_path / SMALL}: " in text
    assert f"bytes instead of {len(FILES[SMALL])}; choose another folder for this mirror" in text


def test_a_new_mirror_that_cannot_be_asked_is_told(server, tmp_path, caplog):
    one(server, tmp_path, SMALL)
    for offline in (True, False):
        caplog.clear()
        found = fetch_archives(
            (archive(SMALL),), tmp_path, nobody(), offline=offline, patience=QUICK
        )
        assert found[0].path == tmp_path / SMALL and not found[0].downloaded
        assert f"came from {server.url}/{SMALL}" in caplog.text
        assert "not compared with it; used as it is" in caplog.text


def nobody():
    """The address of a port that nothing listens on."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{place.getsockname()[1]}/isic"


@pytest.mark.parametrize("away", ["nobody", "http://no-such-host.invalid/isic"])
def test_without_a_network_the_remedy_comes_within_seconds(tmp_path, away):
    url, started = nobody() if away == "nobody" else away, time.monotonic()
    with pytest.raises(DownloadError) as caught:
        fetch_archives(ALL, tmp_path, url, patience=Patience(first_wait=0.2))
    assert time.monotonic() - started < 20
    text = str(caught.value)
    assert text.startswith(f"3 of 3 archives are missing ({url}/") and "no connection (" in text
    assert "name a folder or a server that it reaches in data.mirror, or put the files" in text
    assert "set data.offline: true):" in text
    for name in FILES:
        assert text.count(f"put it at {tmp_path / name} ; it comes from {url}/{name}") == 1


def test_without_a_network_all_buckets_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(mirror, "BUCKETS", (nobody(), nobody()))
    with pytest.raises(DownloadError) as caught:
        fetch_archives(ALL, tmp_path, patience=Patience(first_wait=0.01))
    assert all(f"{base}/" in str(caught.value) for base in mirror.BUCKETS)
    # Files that were put there by hand could not be checked; offline they are taken.
    (tmp_path / TABLE).write_bytes(FILES[TABLE])
    with pytest.raises(DownloadError, match="cannot be read; .* set data.offline: true to take"):
        fetch_archives((archive(TABLE),), tmp_path, nobody(), patience=QUICK)
    assert fetch_archives((archive(TABLE),), tmp_path, nobody(), offline=True)[0].size > 0


def test_a_server_that_has_answered_is_waited_for():
    told, stop = [], threading.Event()
    patience = Patience(retries=3, strangers=0, first_wait=0.01)
    client = Client(patience, stop, told.append, met={"elsewhere"})
    with pytest.raises(Unreachable):
        client.size(nobody())
    assert not told
    away = nobody()
    client = Client(patience, stop, told.append, met={away.split("/")[2]})
    with pytest.raises(Unavailable, match="4 times in a row; run the same command again"):
        client.size(away)
    assert len(told) == 3


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
    with pytest.raises(
        DownloadError, match=r"1 of 3 archives cannot be used.*\n.*; restore it; if"
    ):
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
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
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


def test_damaged_records_and_lists_are_named(server, tmp_path):
    server.files["SHA256SUMS"] = b"<html>\n" + sums()
    with pytest.raises(ChecksumError, match=r"SHA256SUMS: 1 of 4 lines are no checksum"):
        fetch(server, tmp_path)
    del server.files["SHA256SUMS"]
    (tmp_path / "archives.lock.json").write_text("{")
    with pytest.raises(ChecksumError, match="not a lock file of this program"):
        fetch(server, tmp_path)
