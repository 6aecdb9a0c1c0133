"""One file over HTTP: continued where it broke off, retried, and versions never mixed."""

import contextlib
import errno
import json
import logging
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import requests

from didgen.data.web import never_connected, reason, retry_after
from didgen.runtime.files import OutOfSpace, write_json

LOGGER = logging.getLogger(__name__)
T = TypeVar("T")
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_RANGE = re.compile(r"bytes (\d{1,15})-\d{1,15}/(\d{1,15})$")
_LONGEST_RETRY_AFTER = 300.0
_LARGEST_TEXT = 1 << 20


class DownloadError(ValueError):
    """A file that cannot be had; the message names the file, where it was sought, what to do."""


class Unavailable(DownloadError):
    """The server has no such file, or does not answer; another server may have it."""


class Unreachable(Unavailable):
    """No connection to the server can be made: no network, no such host, nothing listens there."""


class Stopped(Exception):
    """The whole download must stop."""


class _TransientError(Exception):
    """A failure that may pass. `after`: seconds that the server asks to wait; `connected`: whether
    there was a connection at all.
    """

    def __init__(self, reason: str, after: float = 0.0, connected: bool = True) -> None:
        super().__init__(reason)
        self.after, self.connected = after, connected


@dataclass(frozen=True)
class Patience:
    """How often and how long to wait; in seconds, `chunk` in bytes.

    `text` is for the whole of a small text file. `retries` counts failures in a row that brought
    no new byte: a slow but moving transfer of many gigabytes may break off as often as it likes.
    """

    retries: int = 6
    first_wait: float = 1.0
    longest_wait: float = 60.0
    connect: float = 15.0
    read: float = 30.0
    text: float = 60.0
    chunk: int = 1 << 17


class HttpClient:
    """Fetches files of one server after another; for one thread."""

    def __init__(self, patience: Patience, stop: threading.Event) -> None:
        """`stop`, once set, ends every transfer and wait."""
        self._patience, self._stop = patience, stop
        self._session = requests.Session()
        self._session.headers["Accept-Encoding"] = "identity"
        self._session.headers["User-Agent"] = "didgen"

    def size(self, url: str) -> int | None:
        """The bytes that the server says a file has; None when it does not say.

        Raises: `Unavailable` when there is no such file, `Unreachable` when there is no server.
        """

        def attempt() -> int | None:
            with self._request("HEAD", url, {}) as response:
                # 403: some servers sign addresses for GET alone.
                if response.status_code in (403, 405, 501):
                    return None
                _expect(response, url, 200)
                return _length(response)

        return self._persist(url, attempt)

    def text(self, url: str) -> str | None:
        """A small text file, or None when the server has none. Raises: `DownloadError`."""

        def attempt() -> bytes | None:
            with self._request("GET", url, {}) as response:
                if response.status_code in (403, 404, 410):
                    return None
                _expect(response, url, 200)
                content, end = bytearray(), time.monotonic() + self._patience.text
                # Byte by byte: a larger piece would be waited for until it is whole.
                for byte in response.iter_content(1):
                    content += byte
                    if len(content) > _LARGEST_TEXT:
                        raise DownloadError(f"{url}: larger than {_LARGEST_TEXT} bytes")
                    if time.monotonic() > end:
                        raise DownloadError(
                            f"{url}: not whole after {self._patience.text:g} s; try later, or use "
                            "another mirror"
                        )
                return bytes(content)

        content = self._persist(url, attempt)
        return None if content is None else content.decode("utf-8", errors="replace")

    def download(self, url: str, part: Path, notify: Callable[[int], None]) -> None:
        """Fetch a file into `part`, which may hold its first bytes.

        Bytes are continued only where the server says that they are of the same version; which one
        they are of, and how many the whole has, is kept in `part`.json meanwhile. notify: takes
        the number of bytes that are there. The note stays: it shows that the bytes are ours, until
        the caller moves or deletes both. Raises: `DownloadError`, `OutOfSpace`.
        """
        _check_own(part)
        self._persist(url, lambda: self._download(url, part, notify), lambda: _bytes(part))

    def _download(self, url: str, part: Path, notify: Callable[[int], None]) -> None:
        known, offset = _noted(part), _bytes(part)
        if offset and known.get("size") == offset:
            return
        version = known.get("version")
        go_on = {"Range": f"bytes={offset}-", "If-Range": version} if offset and version else {}
        with self._request("GET", url, go_on) as response:
            if go_on and response.status_code == 416:
                part.unlink()
                raise _TransientError(
                    "the file is shorter than the part that is here; starting anew"
                )
            _expect(response, url, 200, 206)
            # 200 is also the answer of servers that know no ranges, or whose file has changed.
            size, here = _length(response), _version(response)
            if response.status_code == 206:
                span = _RANGE.match(response.headers.get("Content-Range", ""))
                size = int(span[2]) if span else None
                same = size == known.get("size") or known.get("size") is None
                if not span or int(span[1]) != offset or not same or here not in (version, None):
                    part.unlink()
                    raise _TransientError(
                        "the server sent a part of another version; starting anew"
                    )
            else:
                # The old bytes go first: they must never stand beside a new version's note.
                part.unlink(missing_ok=True)
                write_json(note_of(part), {"size": size, "version": here})
            try:
                with part.open("ab") as stream:
                    for chunk in response.iter_content(self._patience.chunk):
                        if self._stop.is_set():
                            raise Stopped
                        stream.write(chunk)
                        notify(stream.tell())
                    stream.flush()
                    os.fsync(stream.fileno())
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise OutOfSpace(
                    error.errno,
                    f"no space left while writing {part}; the bytes so far are kept. Free some "
                    "space and run the same command again",
                ) from error
        if size is not None and _bytes(part) != size:
            raise _TransientError(f"found {_bytes(part)} bytes, expected {size}")

    @contextlib.contextmanager
    def _request(
        self, method: str, url: str, headers: dict[str, str]
    ) -> Iterator[requests.Response]:
        patience = self._patience
        timeout = (patience.connect, patience.read)
        try:
            with self._session.request(
                method, url, headers=headers, stream=True, allow_redirects=True, timeout=timeout
            ) as response:
                if urlsplit(url).scheme == "https" != urlsplit(response.url).scheme:
                    raise DownloadError(
                        f"{url}: redirected to an unprotected address, expected https; use another "
                        "mirror"
                    )
                if response.status_code in _PASSING:
                    raise _TransientError(f"status {response.status_code}", retry_after(response))
                yield response
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema):
            raise DownloadError(f"{url}: no address of a web server; correct data.mirror") from None
        except requests.exceptions.TooManyRedirects:
            raise Unavailable(f"{url}: redirects without end") from None
        except requests.RequestException as error:
            raise _TransientError(reason(error), connected=not never_connected(error)) from None

    def _persist(
        self, url: str, attempt: Callable[[], T], reached: Callable[[], int] | None = None
    ) -> T:
        """Repeat an attempt until it succeeds or has failed too often without gaining a byte.

        reached: the bytes that are there, of transfers; other requests are the first to a server,
        and give it up after one retry if it cannot be reached: without a network the error should
        not take minutes. Raises: `Unavailable`, `Unreachable`.
        """
        patience, stalled = self._patience, 0
        most = reached() if reached else 0
        while True:
            try:
                return attempt()
            except _TransientError as error:
                failure = error
            now = reached() if reached else 0
            stalled, most = 1 if now > most else stalled + 1, max(most, now)
            no_server = reached is None and not failure.connected
            if no_server and stalled > min(1, patience.retries):
                raise Unreachable(f"{url}: no connection ({failure})") from failure
            if stalled > patience.retries:
                raise Unavailable(
                    f"{url}: {failure}, {stalled} times in a row; run the same command again to "
                    "continue"
                ) from failure
            backoff = min(patience.first_wait * 2 ** (stalled - 1), patience.longest_wait)
            pause = max(
                min(failure.after, _LONGEST_RETRY_AFTER), backoff * random.uniform(1.0, 1.25)
            )
            LOGGER.warning("%s: %s; trying again in %.1f s", url, failure, pause)
            if self._stop.wait(pause):
                raise Stopped


def _expect(response: requests.Response, url: str, *statuses: int) -> None:
    """Accept an answer of these statuses only. Raises: `Unavailable`."""
    if response.status_code not in statuses:
        what = "no such file" if response.status_code in (404, 410) else "not given out"
        raise Unavailable(f"{url}: {what} (status {response.status_code})")


def _length(response: requests.Response) -> int | None:
    """The bytes that the answer's body should have, where it says."""
    text = response.headers.get("Content-Length", "")
    return int(text) if re.fullmatch(r"[0-9]{1,15}", text) else None


def _version(response: requests.Response) -> str | None:
    """What distinguishes versions of a file; a weak ETag does not promise the same bytes."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified")


def _bytes(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def note_of(part: Path) -> Path:
    """The file beside an unfinished transfer that says which file its bytes belong to."""
    return part.with_name(f"{part.name}.json")


def _noted(part: Path) -> dict:
    """Keys `size` (bytes of the whole or None) and `version` (text or None)."""
    try:
        known = json.loads(note_of(part).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        known = None
    return known if isinstance(known, dict) else {}


def _check_own(part: Path) -> None:
    """Raises: `DownloadError` for a part or a note that no transfer of ours left there."""
    note = note_of(part)
    there = [path for path in (part, note) if os.path.lexists(path)]
    foreign = [path for path in there if path.is_symlink() or not path.is_file()]
    if there and not foreign and not set() < _noted(part).keys() <= {"size", "version"}:
        foreign = there
    if foreign:
        raise DownloadError(
            f"{foreign[0]}: found what no download of DiDGen left there, expected nothing, or an "
            f"unfinished file with its note {note.name}; move it away"
        )
