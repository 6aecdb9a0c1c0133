"""One file over HTTP: continued where it broke off, retried with patience, never mixed up."""

import contextlib
import errno
import os
import random
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import requests
import tenacity

from didgen.data import web
from didgen.data.transfer_part import Part
from didgen.data.web import DownloadError, Unavailable, Unreachable
from didgen.runtime.files import OutOfSpace

T = TypeVar("T")
Notify = Callable[[int, int | None], None]
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)$")
_LONGEST_RETRY_AFTER = 300.0


class Stopped(Exception):
    """The whole download was asked to end."""


class _Passing(Exception):
    """A failure that may pass. `after`: seconds that the server asks to wait; `connected`: whether
    there was a connection at all.
    """

    def __init__(self, reason: str, after: float = 0.0, connected: bool = True) -> None:
        super().__init__(reason)
        self.after, self.connected = after, connected


@dataclass(frozen=True)
class Patience:
    """How often and how long to wait; in seconds, `chunk` in bytes.

    `retries` counts failures in a row that brought no new byte: a slow but moving transfer of many
    gigabytes may break off as often as it likes. `strangers` is their number for a server that has
    not answered once: without a network nobody should wait for minutes to be told so.
    """

    retries: int = 6
    strangers: int = 1
    first_wait: float = 1.0
    longest_wait: float = 60.0
    connect: float = 15.0
    read: float = 30.0
    chunk: int = 1 << 17


class Client:
    """Fetches files of one server after another; for one thread."""

    def __init__(
        self,
        patience: Patience,
        stop: threading.Event,
        log: Callable[[str], None],
        met: set[str] | None = None,
    ) -> None:
        """`stop`, once set, ends every transfer and wait; `log` takes one line a retry; `met`: the
        hosts that have answered, which clients may share.
        """
        self._patience, self._stop, self._log = patience, stop, log
        self._met = set() if met is None else met
        self._session = requests.Session()
        self._session.headers["Accept-Encoding"] = "identity"
        self._session.headers["User-Agent"] = "didgen"

    def size(self, url: str) -> int | None:
        """The bytes that the server says a file has; None when it does not say.

        Raises: `Unavailable` when there is no such file.
        """
        return self._persist(url, lambda: self._size(url))

    def text(self, url: str, limit: int = 1 << 20) -> str | None:
        """A small text file, or None when the server has none. Raises: `DownloadError`."""

        def attempt() -> bytes | None:
            with self._request("GET", url) as response:
                if response.status_code in (403, 404, 410):
                    return None
                web.expect(response, url, 200)
                content = b""
                for chunk in response.iter_content(self._patience.chunk):
                    content += chunk
                    if len(content) > limit:
                        raise DownloadError(f"{web.shown(url)}: larger than {limit} bytes")
                return content

        content = self._persist(url, attempt)
        return None if content is None else content.decode("utf-8", errors="replace")

    def download(self, url: str, part: Path, notify: Notify, trusted: bool) -> bool:
        """Fetch a file into `part`, which may hold its first bytes; True when it went on from them.

        With `trusted`, a checksum will be compared, so bytes are continued even where the server
        does not say which version of the file it has. Raises: `DownloadError`, `OutOfSpace`.
        """
        place, went_on = Part(part), False

        def attempt() -> None:
            nonlocal went_on
            went_on |= self._download(url, place, notify, trusted)

        self._persist(url, attempt, lambda: place.size)
        place.note.unlink(missing_ok=True)
        return went_on

    def _size(self, url: str) -> int | None:
        with self._request("HEAD", url) as response:
            # 403: some servers sign addresses for GET alone.
            if response.status_code in (403, 405, 501):
                return None
            web.expect(response, url, 200)
            return web.length(response)

    def _download(self, url: str, part: Part, notify: Notify, trusted: bool) -> bool:
        """One attempt; True when it went on from bytes that were there."""
        known, offset = part.known(), part.size
        if offset and known.get("size") == offset:
            return True
        validator = known.get("etag") or known.get("modified")
        if offset and not (validator or trusted):
            part.discard()
            offset = 0
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        if offset and validator:
            headers["If-Range"] = validator
        with self._request("GET", url, headers) as response:
            total = self._begin(response, url, part, offset)
            with _disk(part.path), part.path.open("ab", buffering=0) as stream:
                done = stream.tell()
                notify(done, total)
                for chunk in response.iter_content(self._patience.chunk):
                    if self._stop.is_set():
                        raise Stopped
                    rest = memoryview(chunk)
                    while rest:
                        # On a disk that is nearly full it may take less than it is given.
                        rest = rest[stream.write(rest) :]
                    done += len(chunk)
                    notify(done, total)
                os.fsync(stream.fileno())
        if total is not None and done != total:
            if done > total:
                part.discard()
            raise _Passing(f"found {done} bytes, expected {total}")
        return response.status_code == 206

    def _begin(self, response: requests.Response, url: str, part: Part, offset: int) -> int | None:
        """Read the answer's head, make `part` fit it, and return the bytes of the whole file."""
        known = part.known()
        if offset and response.status_code == 416:
            part.discard()
            raise _Passing("the file is shorter than the part that is here; starting anew")
        web.expect(response, url, 200, 206)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise DownloadError(
                f"{web.shown(url)}: sent as {response.headers['Content-Encoding']} although "
                "unpacked bytes were asked for; use another mirror"
            )
        etag, modified = web.strong_etag(response), response.headers.get("Last-Modified")
        if response.status_code == 200:
            # Also the answer of servers that know no ranges, and of those whose file has changed.
            part.begin({"size": web.length(response), "etag": etag, "modified": modified})
            return web.length(response)
        found = _RANGE.match(response.headers.get("Content-Range", ""))
        total = int(found[3]) if found and found[3] != "*" else known.get("size")
        here, there = (known.get("size"), known.get("etag")), (total, etag)
        changed = any(a and b and a != b for a, b in zip(here, there, strict=True))
        if not found or int(found[1]) != offset or changed:
            part.discard()
            raise _Passing("the server sent a part of another version; starting anew")
        return total

    @contextlib.contextmanager
    def _request(
        self, method: str, url: str, headers: dict[str, str] | None = None
    ) -> Iterator[requests.Response]:
        patience = self._patience
        try:
            with self._session.request(
                method,
                url,
                headers=headers,
                stream=True,
                allow_redirects=True,
                timeout=(patience.connect, patience.read),
            ) as response:
                self._met.add(urlsplit(url).netloc)
                if urlsplit(url).scheme == "https" != urlsplit(response.url).scheme:
                    raise DownloadError(
                        f"{web.shown(url)}: redirected to the unprotected "
                        f"{web.shown(response.url)}; expected https; use another mirror"
                    )
                if response.status_code in _PASSING:
                    raise _Passing(f"status {response.status_code}", web.retry_after(response))
                yield response
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema):
            raise DownloadError(
                f"{web.shown(url)}: not an address of a web server; expected http:// or https://"
            ) from None
        except requests.exceptions.TooManyRedirects:
            raise Unavailable(f"{web.shown(url)}: redirects without end") from None
        except requests.RequestException as error:
            # The library's own message repeats the address, with any secret in it.
            connected = not web.never_connected(error)
            raise _Passing(web.reason(error), connected=connected) from None

    def _persist(
        self, url: str, attempt: Callable[[], T], reached: Callable[[], int] = lambda: 0
    ) -> T:
        """Repeat an attempt until it succeeds or has failed too often without gaining a byte.

        Raises: `Unreachable` for a server that never answered, `Unavailable` for one that did.
        """
        patience, most, stalled = self._patience, reached(), 0

        def stranger(error: BaseException | None) -> bool:
            known = urlsplit(url).netloc in self._met
            return isinstance(error, _Passing) and not error.connected and not known

        def enough(state: tenacity.RetryCallState) -> bool:
            strange = stranger(state.outcome.exception())
            return stalled > (patience.strangers if strange else patience.retries)

        def count(state: tenacity.RetryCallState) -> None:
            nonlocal most, stalled
            stalled = 1 if reached() > most else stalled + 1
            most = max(most, reached())

        def wait(state: tenacity.RetryCallState) -> float:
            asked = min(state.outcome.exception().after, _LONGEST_RETRY_AFTER)
            backoff = min(patience.first_wait * 2 ** (stalled - 1), patience.longest_wait)
            return max(asked, backoff * random.uniform(1.0, 1.25))

        def say(state: tenacity.RetryCallState) -> None:
            reason, pause = state.outcome.exception(), state.next_action.sleep
            self._log(f"{web.shown(url)}: {reason}; trying again in {pause:.1f} s")

        def sleep(seconds: float) -> None:
            if self._stop.wait(seconds):
                raise Stopped

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Passing),
            after=count, wait=wait, stop=enough,
            before_sleep=say, sleep=sleep, reraise=True,
        )  # fmt: skip
        try:
            return retrying(attempt)
        except _Passing as error:
            if stranger(error):
                raise Unreachable(f"{web.shown(url)}: no connection ({error})") from None
            raise Unavailable(
                f"{web.shown(url)}: {error}, {stalled} times in a row; run the same command again "
                "to continue"
            ) from None


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OutOfSpace(
            error.errno,
            f"no space left while writing {path}; the bytes so far are kept. Free some space and "
            "run the same command again",
        ) from error
