"""What web servers answer, read the same way by downloads and by captioners."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import requests
import urllib3


def shown(url: str) -> str:
    """An address as it may be written anywhere: without user, password, query and fragment."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        # Where the port should be may stand a piece of a password, and the path may hold the rest.
        return "(an address that cannot be read)"
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


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
