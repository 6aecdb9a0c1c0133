"""A real HTTP server on loopback that can misbehave, and counts every byte it sends."""

import hashlib
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

BLOCK = 1 << 14


class MirrorServer:
    """Serves `files` (name -> bytes) below /isic. Use as a context manager.

    `faults[name]` is a list of what the next GETs of a file do instead of what is right, in order:
    ("drop", n): n bytes of the body, then the connection breaks off; ("status", code, headers);
    ("wrong",): other bytes; ("drip", s): a byte every s seconds; ("hold", n): n bytes, then nothing
    until `release` is set.
    `head_faults` is the same of HEADs.
    """

    def __init__(self, files: dict[str, bytes], ranges: bool = True, etags: bool = True) -> None:
        self.files, self.ranges, self.etags = dict(files), ranges, etags
        self.faults: dict[str, list[tuple]] = defaultdict(list)
        self.head_faults: dict[str, list[tuple]] = defaultdict(list)
        self.sent: Counter[str] = Counter()
        self.requests: list[tuple[str, str, str | None, int]] = []
        self.authorizations: list[str | None] = []
        self.release = threading.Event()
        self.delay: Callable[[], None] = lambda: None
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                server.answer(self, body=False)

            def do_GET(self) -> None:
                server.answer(self, body=True)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    def __enter__(self) -> "MirrorServer":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/isic"

    def ranges_of(self, name: str) -> list[str | None]:
        """The Range header of every GET of a file."""
        return [
            asked for method, file, asked, _ in self.requests if (method, file) == ("GET", name)
        ]

    def answer(self, request: BaseHTTPRequestHandler, body: bool) -> None:
        name = unquote(urlsplit(request.path).path).removeprefix("/isic/")
        self.authorizations.append(request.headers["Authorization"])
        faults = (self.faults if body else self.head_faults)[name]
        fault = faults.pop(0) if faults else ("none",)
        content = self.files.get(name)
        if fault[0] == "status" or content is None:
            code, headers = (fault[1], fault[2]) if fault[0] == "status" else (404, {})
            self._head(request, name, code, {"Content-Length": "0", **headers})
            return
        if fault[0] == "wrong":
            content = content[:-1] + bytes([content[-1] ^ 1])
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        start = self._start(request, content, etag)
        headers = {"ETag": etag} if self.etags else {}
        if start >= len(content) > 0 and start:
            self._head(request, name, 416, {"Content-Range": f"bytes */{len(content)}",
                                            "Content-Length": "0"})  # fmt: skip
            return
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        headers["Content-Length"] = str(len(content) - start)
        self._head(request, name, 206 if start else 200, headers)
        if body:
            self._body(request, name, content[start:], fault)

    def _start(self, request: BaseHTTPRequestHandler, content: bytes, etag: str) -> int:
        asked, condition = request.headers["Range"], request.headers["If-Range"]
        if not self.ranges or not asked or (condition and condition != etag):
            return 0
        return int(asked.removeprefix("bytes=").removesuffix("-"))

    def _head(self, request, name: str, code: int, headers: dict[str, str]) -> None:
        self.requests.append((request.command, name, request.headers["Range"], code))
        request.send_response(code)
        for key, value in headers.items():
            request.send_header(key, value)
        request.end_headers()

    def _body(self, request, name: str, body: bytes, fault: tuple) -> None:
        limit = {"drop": fault[-1], "hold": fault[-1], "drip": 0}.get(fault[0], len(body))
        for place in range(0, min(limit, len(body)), BLOCK):
            block = body[place : min(place + BLOCK, limit)]
            self.delay()
            try:
                request.wfile.write(block)
            except OSError:
                return
            self.sent[name] += len(block)
        if fault[0] == "drip":
            for place in range(len(body)):
                if self.release.wait(fault[1]):
                    return
                request.wfile.write(body[place : place + 1])
        if fault[0] == "hold":
            request.wfile.flush()
            self.release.wait(60)
        if fault[0] in ("drop", "hold"):
            request.close_connection = True
