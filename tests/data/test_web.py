import time
from email.utils import formatdate

import pytest
import requests

from didgen.data import web


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


def test_retry_after_is_seconds_or_a_date():
    in_a_minute = formatdate(time.time() + 60, usegmt=True)
    for text, expected in (
        ("7", 7),
        ("", 0),
        ("soon", 0),
        (in_a_minute, 60),
        ("9" * 5000, float("inf")),
    ):
        response = requests.Response()
        response.headers["Retry-After"] = text
        assert web.retry_after(response) == pytest.approx(expected, abs=3)
