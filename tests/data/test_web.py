import time
from email.utils import formatdate

import pytest
import requests

from didgen.data import web
from didgen.data.checksums import ChecksumError, read_sums
from didgen.data.transfer_progress import TransferProgress, readable


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://host/a/b.zip", "https://host/a/b.zip"),
        ("https://me:hush@host:8443/a?key=hush#x", "https://host:8443/a"),
        ("http://[::1]:80/a", "http://::1:80/a"),
        ("http://me:hu/sh@host/a", "(an address that cannot be read)"),
        ("http://me:hush@host:hush/a", "(an address that cannot be read)"),
    ],
)
def test_addresses_are_shown_without_secrets(url, expected):
    assert web.shown(url) == expected


def test_an_address_below_a_base_keeps_its_secrets():
    assert web.address("http://me:pw@h/x/?k=1", "a b.zip") == "http://me:pw@h/x/a%20b.zip?k=1"


def test_retry_after_is_seconds_or_a_date():
    in_a_minute = formatdate(time.time() + 60, usegmt=True)
    for text, expected in (("7", 7), ("", 0), ("soon", 0), (in_a_minute, 60)):
        response = requests.Response()
        response.headers["Retry-After"] = text
        assert web.retry_after(response) == pytest.approx(expected, abs=3)


def test_a_weak_etag_promises_nothing():
    response = requests.Response()
    assert web.strong_etag(response) is None
    response.headers["ETag"] = 'W/"abc"'
    assert web.strong_etag(response) is None
    response.headers["ETag"] = '"abc"'
    assert web.strong_etag(response) == '"abc"'


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
    with pytest.raises(ChecksumError, match="0 of 0 lines"):
        read_sums("", "here")


def test_progress_counts_only_what_this_run_received():
    progress = TransferProgress("download", 2, 3_000_000)
    progress.at("a", 1_000_000, 2_000_000)
    assert "0 of 2 files, 1 MB of about 3 MB, 0 B/s" in progress.line()
    progress.at("a", 2_000_000, 2_000_000)
    progress.finish("a")
    text = progress.line()
    assert "1 of 2 files, 2 MB of about 3 MB" in text and "left" in text and "0 B/s" not in text
    # A file that starts anew has fewer bytes than before.
    progress.at("a", 0, 2_000_000)
    assert "0 B of about 3 MB" in progress.line()


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (10_400_000_000, "10.4 GB"), (2e12, "2000 GB")],
)
def test_sizes_are_readable(size, text):
    assert readable(size) == text
