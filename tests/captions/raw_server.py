"""A server that sends whatever bytes it is told to, at whatever pace."""

import contextlib
import json
import socket
import threading


class RawServer:
    """Gives each request to `send(connection, request)`, a body as JSON; then hangs up."""

    def __init__(self, send):
        self.send, self.requests = send, []
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self):
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}/v1"

    def close(self):
        self._listening.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        # The client may go away at any time.
        with connection, contextlib.suppress(OSError):
            with connection.makefile("rb") as stream:
                length = 0
                while line := stream.readline().strip():
                    name, _, value = line.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                request = json.loads(stream.read(length)) if length else None
            self.requests.append(request)
            self.send(connection, request)
            # Without this, unread bytes of the client would reset the connection.
            connection.shutdown(socket.SHUT_WR)


def reply_bytes(body, status=b"200 OK", **headers):
    """A whole HTTP reply."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(data)]
    lines += [f"{name.replace('_', '-')}: {value}".encode() for name, value in headers.items()]
    return b"\r\n".join([*lines, b"", data])
