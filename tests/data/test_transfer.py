import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from didgen.data import download
from didgen.data.transfer import DownloadError
from tests.data.mirror_files import (
    BIG,
    FILES,
    QUICK,
    SMALL,
    contents,
    fetch_from,
    one,
    sums,
    zipped,
)
from tests.data.mirror_server import MirrorServer


def test_a_dropped_connection_is_continued_from_its_bytes(server, tmp_path):
    server.faults[BIG] = [("drop", 300_000), ("drop", 400_000)]
    one(server, tmp_path)
    assert contents(tmp_path)[BIG] == FILES[BIG]
    first, *later = server.ranges_of(BIG)
    assert first is None and len(later) == 2
    starts = [int(asked.removeprefix("bytes=")[:-1]) for asked in later]
    assert 300_000 - QUICK.chunk <= starts[0] <= 300_000 and starts[1] > 650_000
    assert server.sent[BIG] <= len(FILES[BIG]) + 2 * QUICK.chunk


class Reluctant(io.FileIO):
    """A file on a disk that is nearly full: it takes half of what it is given."""

    def write(self, data):
        return super().write(data[: max(1, len(data) // 2)])


def test_what_a_file_does_not_take_at_once_is_not_lost(server, tmp_path, monkeypatch):
    usual = Path.open

    def reluctant(path, mode="r", *words, **more):
        if mode != "ab":
            return usual(path, mode, *words, **more)
        return io.BufferedWriter(Reluctant(path, "ab"))

    monkeypatch.setattr(Path, "open", reluctant)
    one(server, tmp_path)
    assert contents(tmp_path)[BIG] == FILES[BIG]


def test_a_moving_transfer_may_break_off_more_often_than_a_dead_one(server, tmp_path):
    server.faults[BIG] = [("drop", 100_000)] * 8
    one(server, tmp_path)
    assert contents(tmp_path)[BIG] == FILES[BIG]
    server.faults[SMALL] = [("drop", 0)] * 3
    with pytest.raises(DownloadError, match=r"connection broke off.*, 3 times in a row"):
        one(server, tmp_path, SMALL)


FETCH = """
import sys
from didgen.data.download import fetch_archives
from didgen.data.sources.catalog import Archive
from didgen.data.transfer import Patience
url, folder, *names = sys.argv[1:]
wanted = [Archive(name, "3", "train", "input", 1, 1, "CC0 1.0") for name in names]
patience = Patience(first_wait=0.01, read=30, chunk=1 << 14)
fetch_archives(wanted, folder, url, False, 4, patience)
"""


def start(server, folder, *names):
    root = Path(__file__).parents[2]
    return subprocess.Popen([sys.executable, "-c", FETCH, server.url, str(folder), *names],
                            cwd=root, stderr=subprocess.PIPE, text=True)  # fmt: skip


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_a_killed_download_continues_from_its_bytes(server, tmp_path):
    part = tmp_path / f"{BIG}.part"
    server.faults[BIG] = [("hold", 600_000)]
    job = start(server, tmp_path, BIG)
    wait_for(lambda: part.is_file() and part.stat().st_size >= 500_000)
    job.send_signal(signal.SIGKILL)
    job.communicate()
    kept = part.stat().st_size
    assert job.returncode == -signal.SIGKILL and not (tmp_path / BIG).exists()
    first = server.sent[BIG]
    job = start(server, tmp_path, BIG)
    assert job.wait(60) == 0, job.stderr.read()
    assert contents(tmp_path)[BIG] == FILES[BIG]
    assert server.ranges_of(BIG) == [None, f"bytes={kept}-"]
    # Counted at the server: the second run sent only what the first had not kept.
    assert server.sent[BIG] - first == len(FILES[BIG]) - kept


def test_a_killed_download_that_was_complete_needs_no_byte(server, tmp_path):
    one(server, tmp_path)
    (tmp_path / BIG).rename(tmp_path / f"{BIG}.part")
    (tmp_path / f"{BIG}.part.json").write_text(json.dumps({"size": len(FILES[BIG])}))
    before = server.sent[BIG]
    one(server, tmp_path)
    assert server.sent[BIG] == before and contents(tmp_path)[BIG] == FILES[BIG]


def test_two_processes_share_one_download(server, tmp_path):
    server.delay = lambda: time.sleep(0.005)
    jobs = [start(server, tmp_path, *FILES) for _ in range(2)]
    for job in jobs:
        assert job.wait(90) == 0, job.stderr.read()
    assert contents(tmp_path) == FILES and not list(tmp_path.glob("*.part*"))
    assert {name: server.sent[name] for name in FILES} == {n: len(c) for n, c in FILES.items()}
    assert len(json.loads((tmp_path / "archives.lock.json").read_text())["files"]) == 3


@pytest.mark.parametrize("etags", [True, False])
def test_a_server_that_ignores_ranges_starts_anew(tmp_path, etags):
    with MirrorServer(FILES, ranges=False, etags=etags) as server:
        server.faults[BIG] = [("drop", 500_000)]
        one(server, tmp_path)
        assert contents(tmp_path)[BIG] == FILES[BIG]
        assert server.sent[BIG] == 500_000 + len(FILES[BIG])


def test_without_a_version_the_file_starts_anew(tmp_path):
    with MirrorServer({**FILES, "SHA256SUMS": sums()}, etags=False) as server:
        server.faults[BIG] = [("drop", 500_000)]
        one(server, tmp_path)
        assert server.ranges_of(BIG) == [None, None]
        assert contents(tmp_path)[BIG] == FILES[BIG]


@pytest.mark.parametrize("size", [1 << 20, 1 << 21, 1 << 12])
def test_a_file_that_changes_meanwhile_is_fetched_anew(server, tmp_path, size):
    server.faults[BIG] = [("drop", 500_000), ("status", 503, {})]
    changed = zipped(size, seed=2)
    server.delay = lambda: server.files.update({BIG: changed})
    one(server, tmp_path)
    assert contents(tmp_path)[BIG] == changed


def test_a_note_of_another_version_starts_anew(server, tmp_path):
    (tmp_path / f"{BIG}.part").write_bytes(b"\0" * 500_000)
    (tmp_path / f"{BIG}.part.json").write_text('{"size": 7, "version": "\\"other\\""}')
    one(server, tmp_path)
    assert contents(tmp_path)[BIG] == FILES[BIG]


@pytest.mark.parametrize("note", [None, "[]", "{", "{}", '{"size": 7, "mine": 1}', "[" * 99_999])
def test_a_part_without_a_note_of_ours_is_not_touched(server, tmp_path, note):
    mine = {f"{BIG}.part": "mine"} | ({f"{BIG}.part.json": note} if note else {})
    for name, text in mine.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(DownloadError, match=r"zip\.part: found what no download of DiDGen left"):
        one(server, tmp_path)
    assert {name: (tmp_path / name).read_text() for name in mine} == mine
    assert not server.sent[BIG] and not (tmp_path / BIG).exists()


@pytest.mark.parametrize("name", [f"{BIG}.part", f"{BIG}.part.json"])
def test_a_transfer_writes_through_no_link(server, tmp_path, name):
    (tmp_path / "kept").mkdir()
    mine = tmp_path / "mine"
    mine.write_text('{"size": 7}')
    (tmp_path / "kept" / name).symlink_to(mine)
    with pytest.raises(DownloadError, match="found what no download of DiDGen left"):
        one(server, tmp_path / "kept")
    assert mine.read_text() == '{"size": 7}' and (tmp_path / "kept" / name).is_symlink()


def test_a_kill_after_the_last_byte_leaves_a_part_that_is_known(server, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("didgen.data.download.examine", killed)
        one(server, tmp_path)
    before = server.sent[BIG]
    one(server, tmp_path)
    assert server.sent[BIG] == before and not list(tmp_path.glob("*.part*"))


@pytest.mark.parametrize("kind", ["folder", "link", "pipe"])
def test_what_lies_in_an_archive_s_place_is_left_alone(server, tmp_path, kind):
    place = tmp_path / BIG
    {"folder": place.mkdir, "link": lambda: place.symlink_to(tmp_path / "gone"),
     "pipe": lambda: os.mkfifo(place)}[kind]()  # fmt: skip
    with pytest.raises(DownloadError, match=r"big\.zip: found a folder, a special file or a link"):
        one(server, tmp_path)
    assert os.path.lexists(place) and not server.sent[BIG]


def test_a_busy_server_is_asked_again_after_the_time_it_names(server, tmp_path, caplog):
    server.faults[SMALL] = [("status", 503, {}), ("status", 429, {"Retry-After": "1"})]
    began = time.monotonic()
    one(server, tmp_path, SMALL)
    assert time.monotonic() - began >= 1
    assert "status 503; trying again in 0.0 s" in caplog.text
    assert "status 429; trying again in 1.0 s" in caplog.text


def test_a_server_that_stays_busy_or_away_is_given_up(server, tmp_path):
    server.faults[SMALL] = [("status", 500, {})] * 3
    with pytest.raises(DownloadError, match="small.zip: status 500, 3 times in a row; run the"):
        one(server, tmp_path, SMALL)
    with pytest.raises(
        DownloadError, match=r"3 of 3 .*x/SHA256SUMS: no connection \(Connection refused\)"
    ):
        fetch_from("http://127.0.0.1:9/x", tmp_path)


def test_an_interrupt_ends_the_threads_and_keeps_the_bytes(server, tmp_path, monkeypatch):
    server.faults[BIG] = [("hold", 300_000)]
    part = tmp_path / f"{BIG}.part"

    def interrupt(jobs):
        if not any(server.sent.values()):
            wait_for(lambda: all(job.done() for job in jobs) or part.is_file())
        if not part.is_file():
            return iter(jobs)
        wait_for(lambda: part.stat().st_size >= 250_000)
        threading.Timer(0.2, server.release.set).start()
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "as_completed", interrupt)
    with pytest.raises(KeyboardInterrupt):
        one(server, tmp_path)
    assert part.stat().st_size >= 250_000
    monkeypatch.undo()
    one(server, tmp_path)
    assert server.ranges_of(BIG)[-1] is not None and contents(tmp_path)[BIG] == FILES[BIG]


def test_checksums_that_drip_are_given_up(server, tmp_path):
    server.files["SHA256SUMS"] = sums(FILES)
    server.faults["SHA256SUMS"] = [("drip", 0.2)]
    started = time.monotonic()
    with pytest.raises(DownloadError, match="SHA256SUMS: not whole after 1 s; try later"):
        fetch_from(server.url, tmp_path, patience=replace(QUICK, text=1.0))
    assert time.monotonic() - started < 15
