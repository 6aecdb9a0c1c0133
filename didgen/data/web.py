"""Addresses of web servers and the heads of their answers, read the same way everywhere."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote, urlsplit

import requests
import urllib3


class DownloadError(ValueError):
    """A file that cannot be had; the message names the file, where it was sought, what to do."""


class Unavailable(DownloadError):
    """The server has no such file, or does not answer; another server may have it."""


class Unreachable(Unavailable):
    """No connection to the server can be made: no network, no such host, nothing listens there."""


def shown(url: str) -> str:
    """An address as it may be written anywhere: without user, password, query and fragment."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        # Where the port should be may stand a piece of a password, and the path may hold the rest.
        return "(an address that cannot be read)"
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


def check_address(url: str, what: str) -> None:
    """Accept addresses of web servers only. Raises: `DownloadError`, without any secret of `url`.

    `what`: the setting that names the address.
    """
    if not url.startswith(("http://", "https://")):
        raise DownloadError(
            f"{what}: found {shown(url)!r}, expected http://, https:// or the path of a folder"
        )
    try:
        parts = urlsplit(url)
        fit = bool(parts.hostname) and parts.port != 0
    except ValueError:
        fit = False
    if not fit:
        raise DownloadError(
            f"{what}: not an address; expected http:// or https://, a host and, if need be, a port "
            "number. In a user or password write / : @ # ? as %2F %3A %40 %23 %3F, or keep both in "
            "~/.netrc"
        )


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
    """Seconds that a server asks to wait, given as such or as a date; else 0.

    They may be any number: past, infinite.
    """
    text = response.headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        return (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError, OverflowError):
        return 0.0


def reason(error: Exception) -> str:
    """What went wrong in words without an address: the innermost cause's own text, or its kind."""
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError)):
        return "no answer in time"
    texts = [one.strerror for one in _causes(error) if isinstance(one, OSError) and one.strerror]
    return texts[-1] if texts else f"the connection broke off ({type(error).__name__})"


def never_connected(error: requests.RequestException) -> bool:
    """Whether no connection was made at all: no such host, no way to it, nothing listens there."""
    kinds = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
    return any(isinstance(one, kinds) for one in _causes(error))


def _causes(error: BaseException) -> list[BaseException]:
    """The error and all that led to it, outermost first."""
    seen = [error]
    for inner in seen:
        near = (inner.__cause__, inner.__context__, getattr(inner, "reason", None), *inner.args)
        seen += [one for one in near if isinstance(one, BaseException) and one not in seen]
    return seen
