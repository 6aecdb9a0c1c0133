"""Addresses of web servers and the heads of their answers, read the same way everywhere."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote, urlsplit

import requests


class DownloadError(ValueError):
    """A file that cannot be had; the message names the file, where it was sought, what to do."""


class Unavailable(DownloadError):
    """The server has no such file, or does not answer; another server may have it."""


def shown(url: str) -> str:
    """An address as it may be written anywhere: without user, password, query and fragment."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


def address(base: str, name: str) -> str:
    """The address of a file below a base address, whose query (a signature, say) is kept."""
    parts = urlsplit(base)
    return parts._replace(path=f"{parts.path.rstrip('/')}/{quote(name)}", fragment="").geturl()


def expect(response: requests.Response, url: str, *statuses: int) -> None:
    """Accept an answer of these statuses only. Raises: `Unavailable`."""
    if response.status_code not in statuses:
        what = "no such file" if response.status_code in (404, 410) else "not given out"
        raise Unavailable(f"{shown(url)}: {what} (status {response.status_code})")


def length(response: requests.Response) -> int | None:
    """The bytes that the answer's body should have, where it says."""
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else None


def strong_etag(response: requests.Response) -> str | None:
    """The ETag, unless it is a weak one: these do not promise the same bytes."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else None


def retry_after(response: requests.Response) -> float:
    """Seconds that a server asks to wait, given as such or as a date; else 0."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        return (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return 0.0


def reason(error: requests.RequestException) -> str:
    """What went wrong in words without an address: the innermost cause's own text, or its kind."""
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    seen: list[BaseException] = [error]
    for inner in seen:
        near = (inner.__cause__, inner.__context__, getattr(inner, "reason", None), *inner.args)
        seen += [one for one in near if isinstance(one, BaseException) and one not in seen]
    texts = [one.strerror for one in seen if isinstance(one, OSError) and one.strerror]
    return texts[-1] if texts else f"the connection broke off ({type(error).__name__})"
