"""The requests and the answers to faults, against a small server of our own on this machine."""

import contextlib
import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from didgen.captions.llm import ChatRequest, ChatResponse, Failure, ImageFile, ModelError
from didgen.captions.openai_server import GRACE, ServerModel
from didgen.runtime.files import write_png
from tests.captions.raw_server import RawServer, reply_bytes

ROOT = Path(__file__).parents[2]


def completion(text="ok", ending="stop"):
    return {
        "choices": [{"message": {"content": text}, "finish_reason": ending}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
    }


class Server(ThreadingHTTPServer):
    """Answers with `reply(body, count of earlier requests with this text)`; notes all requests."""

    daemon_threads = True

    def handle_error(self, request, client_address):
        """Say nothing: the client may reset its connection."""

    def __init__(self, reply):
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply, self.seen, self.headers = reply, [], []
        self.lock, self.flying, self.most = threading.Lock(), 0, 0
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server, text = self.server, text_of(body)
        with server.lock:
            earlier = sum(text_of(one) == text for one in server.seen)
            server.seen.append(body)
            server.headers.append(dict(self.headers))
            server.flying += 1
            server.most = max(server.most, server.flying)
        found = server.reply(body, earlier)
        with server.lock:
            server.flying -= 1
        status, value, extra = found if isinstance(found, tuple) else (200, found, {})
        if status == 0:
            self.close_connection = True
            return
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, told in {"Content-Length": str(len(data)), **extra}.items():
            self.send_header(name, told)
        # The client may hang up before it has read all.
        with contextlib.suppress(OSError):
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, *_):
        pass


def text_of(body):
    content = body["messages"][1]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


@pytest.fixture
def serve():
    """Start a server with a reply."""
    servers = []

    def start(reply):
        servers.append(Server(reply))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


OPTIONS = {
    "api_key_variable": "DIDGEN_API_KEY", "answer_format": "json_schema", "concurrency": 8,
    "first_wait": 0.01, "retries": 3, "timeout": 20,
}  # fmt: skip


def client(server, **options):
    return ServerModel(server.address, "tiny", **OPTIONS | options)


def ask(model, *texts, **options):
    """The results in the order of the requests."""
    requests = (ChatRequest("s", text, **options) for text in texts)
    return [result for _, result in sorted(model.complete(requests), key=lambda one: one[0])]


def test_the_request_says_all_that_matters(serve, tmp_path, monkeypatch):
    monkeypatch.setenv("DIDGEN_API_KEY", "secret-key")
    server = serve(lambda body, earlier: completion('{"a": 1}'))
    write_png(tmp_path / "a.png", np.zeros((32, 40, 3), dtype=np.uint8))
    schema = {"type": "object", "properties": {"a": {"enum": [1]}}, "required": ["a"]}
    (found,) = ask(
        client(server), "what?", schema=schema, image=ImageFile.of(tmp_path / "a.png", 64),
        max_tokens=9, seed=5,
    )  # fmt: skip
    assert (found.text, found.prompt_tokens, found.answer_tokens) == ('{"a": 1}', 7, 3)
    body = server.seen[0]
    assert (body["model"], body["temperature"], body["seed"], body["max_tokens"]) == (
        "tiny", 0.0, 5, 9,
    )  # fmt: skip
    assert body["messages"][0] == {"role": "system", "content": "s"}
    image, text = body["messages"][1]["content"]
    assert image["image_url"]["url"].startswith("data:image/png;base64,iVBOR")
    assert text == {"type": "text", "text": "what?"}
    told = body["response_format"]
    assert told["type"] == "json_schema"
    assert told["json_schema"]["schema"] == schema
    assert told["json_schema"]["strict"] is True
    assert server.headers[0]["Authorization"] == "Bearer secret-key"
    assert "secret-key" not in json.dumps(body)


@pytest.mark.parametrize(
    ("answer_format", "sent"),
    [("json_object", {"type": "json_object", "schema": {"const": 1}}), ("text", None)],
)
def test_other_ways_of_telling_the_schema(serve, answer_format, sent):
    server = serve(lambda body, earlier: completion())
    ask(client(server, answer_format=answer_format), "a", schema={"const": 1})
    assert server.seen[0].get("response_format") == sent
    assert "Authorization" not in server.headers[0]


def test_many_are_in_flight_and_each_response_finds_its_request(serve):
    def reply(body, earlier):
        time.sleep(0.05)
        return completion(text_of(body).upper())

    server = serve(reply)
    texts = [f"q{k}" for k in range(24)]
    found = ask(client(server, concurrency=4), *texts)
    assert [one.text for one in found] == [text.upper() for text in texts]
    assert 2 <= server.most <= 4


def test_requests_are_taken_as_they_are_needed(serve):
    server = serve(lambda body, earlier: completion())
    taken = []

    def requests():
        for k in range(50):
            taken.append(k)
            yield ChatRequest("", str(k))

    results = client(server, concurrency=3).complete(requests())
    next(results)
    assert len(taken) <= 6
    results.close()


@pytest.mark.parametrize("status", [429, 500, 503, 0])
def test_passing_faults_are_tried_again(serve, status):
    server = serve(lambda body, earlier: completion() if earlier == 2 else (status, b"", {}))
    (found,) = ask(client(server), "a")
    assert isinstance(found, ChatResponse)
    assert len(server.seen) == 3


def test_the_servers_wish_to_wait_is_heard(serve):
    server = serve(
        lambda body, earlier: completion() if earlier else (429, b"", {"Retry-After": "1"})
    )
    started = time.monotonic()
    ask(client(server), "a")
    assert 1.0 <= time.monotonic() - started < 15


def test_a_lasting_fault_fails_its_request_alone(serve):
    def reply(body, earlier):
        return (500, b"", {}) if text_of(body) == "b" else completion(text_of(body))

    server = serve(reply)
    found = ask(client(server, concurrency=1, retries=2), "a", "b", "c")
    assert (found[0].text, found[2].text) == ("a", "c")
    assert "status 500" in found[1].reason
    assert len(server.seen) == 2 + 3


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ((400, {"error": {"message": "image too large"}}, {}), "status 400: image too large"),
        ((422, {"detail": "no schema"}, {}), "status 422: no schema"),
        (completion("half", "length"), "cut off after 3 tokens"),
        (completion(None, "content_filter"), "ended with 'content_filter'"),
        (completion(None), "found None as answer, expected a text"),
        (completion("half", "length") | {"usage": None}, "cut off after 1024 tokens"),
        ((200, b"<html>", {}), "expected a chat completion"),
        ((200, {"choices": []}, {}), "expected a chat completion"),
        ((200, b"[" * 100_000, {}), "expected a chat completion"),
        ((200, b"1" * 5_000, {}), "expected a chat completion"),
        ((302, b"", {}), "status 302"),
        ((200, b" " * 2**21, {}), "a reply of more than 1048576 bytes"),
        ((400, b" " * 2**21, {}), "a reply of more than 1048576 bytes"),
    ],
)
def test_what_is_no_whole_answer_fails_at_once(serve, reply, reason):
    server = serve(lambda body, earlier: reply)
    (found,) = ask(client(server), "a")
    assert isinstance(found, Failure)
    assert reason in found.reason
    assert len(server.seen) == 1


@pytest.mark.parametrize(("status", "told"), [(401, "DIDGEN_API_KEY is refused"), (404, "'tiny'")])
def test_what_no_request_can_mend_ends_it_without_the_key(serve, monkeypatch, caplog, status, told):
    monkeypatch.setenv("DIDGEN_API_KEY", "secret-key")
    caplog.set_level("DEBUG")
    server = serve(lambda body, earlier: (status, {"error": "no"}, {}))
    with pytest.raises(ModelError, match=told) as caught:
        ask(client(server), *"abcdefghijklmnop")
    assert len(server.seen) < 16
    assert "secret-key" not in str(caught.value) + caplog.text


def test_a_missing_key_is_named(serve, monkeypatch):
    monkeypatch.delenv("OTHER_KEY", raising=False)
    server = serve(lambda body, earlier: (403, b"", {}))
    with pytest.raises(ModelError, match="OTHER_KEY is not set"):
        ask(client(server, api_key_variable="OTHER_KEY"), "a")


def test_a_server_that_is_not_there_is_an_error_not_a_failure(serve):
    server = serve(lambda body, earlier: completion())
    address = server.address
    server.shutdown()
    server.server_close()
    model = ServerModel(address, "tiny", **OPTIONS | {"retries": 1, "timeout": 5})
    with pytest.raises(ModelError, match="start the server"):
        ask(model, "a", "b")
    with pytest.raises(ModelError, match="expected an address"):
        ServerModel("localhost:8000", "tiny", **OPTIONS)


def test_the_identity_tells_servers_and_models_apart():
    first = ServerModel.identify("http://a/v1", "m", "text")
    assert first == ServerModel.identify("http://a/v1/", "m", "text", concurrency=3)
    others = [("http://b/v1", "m", "text"), ("http://a/v1", "n", "text"),
              ("http://a/v1", "m", "json_object")]  # fmt: skip
    assert len({first, *(ServerModel.identify(*other) for other in others)}) == 4


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": None, "completion_tokens": "many"},
        {"prompt_tokens": float("nan"), "completion_tokens": float("inf")},
        {"prompt_tokens": -1, "completion_tokens": 10**30},
        {"prompt_tokens": True, "completion_tokens": [3]},
        [7],
        "7",
    ],
)
def test_counts_of_tokens_that_are_none_cost_no_answer(serve, usage):
    server = serve(lambda body, earlier: completion() | {"usage": usage})
    (found,) = ask(client(server), "a")
    assert (found.text, found.prompt_tokens, found.answer_tokens) == ("ok", 0, 0)


@pytest.mark.parametrize("written", ["secret-key\n", " secret-key\r\n", "\tsecret-key "])
def test_white_space_around_a_key_is_no_part_of_it(serve, monkeypatch, written):
    monkeypatch.setenv("DIDGEN_API_KEY", written)
    server = serve(lambda body, earlier: completion())
    ask(client(server), "a")
    assert server.headers[0]["Authorization"] == "Bearer secret-key"


@pytest.mark.parametrize("written", ["secret\nkey", "secret key", "secret\x07key", "s\u00e9cret"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_repeated(serve, monkeypatch, written):
    monkeypatch.setenv("DIDGEN_API_KEY", written)
    with pytest.raises(ModelError, match="DIDGEN_API_KEY") as caught:
        client(serve(lambda body, earlier: completion()))
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize("status", [400, 404])
def test_a_key_that_the_server_repeats_is_not_shown(serve, monkeypatch, status):
    monkeypatch.setenv("DIDGEN_API_KEY", "secret-key")
    told = {"error": {"message": "incorrect key secret-key"}}
    server = serve(lambda body, earlier: (status, told, {}))
    try:
        (found,) = ask(client(server), "a")
        text = found.reason
    except ModelError as error:
        text = str(error)
    assert "incorrect key" in text and "secret-key" not in text


@pytest.mark.parametrize(
    "reply",
    [
        (400, b"\x1b[2J\x1b]0;owned\x07 no\r\n\x00", {}),
        (400, {"error": "\x1b[31m no\u202e\x9b"}, {}),
        (200, b"\x1b[2J", {}),
        completion("half", "\x1b[2J"),
        completion(["\x1b[2J"]),
    ],
)
def test_control_characters_of_a_server_are_not_shown(serve, reply):
    server = serve(lambda body, earlier: reply)
    (found,) = ask(client(server), "a")
    assert found.reason.isprintable() and len(found.reason) < 400


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("target", "named"),
    [
        ("{other}/chat/completions?a=b", "127.0.0.1"),
        ("/v2/chat", "/v2/chat"),
        ("http://user:word@evil/\x1b[2J", "http://evil/"),
        ("http://[evil", "no address|cannot be read"),
        ("\xff\xfe", ""),
    ],
)
def test_no_redirection_is_followed(serve, status, target, named):
    other = serve(lambda body, earlier: completion())
    location = target.format(other=other.address)
    server = serve(lambda body, earlier: (status, b"x" * 2**21, {"Location": location}))
    with pytest.raises(ModelError, match=f"status {status}, a redirection to .*{named}") as caught:
        ask(client(server), "a")
    assert str(caught.value).isprintable() and "word" not in str(caught.value)
    assert not other.seen


@pytest.mark.parametrize(
    "asked",
    [
        "9" * 400,
        "-5",
        "nan",
        "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
        "Mon, 01 Jan 2024 00:00:00 +9999999999",
        "Sat, 01 Jan 0001 00:00:00 +2359",
        "Fri, 31 Dec 9999 23:59:59 -2359",
    ],
)
def test_an_absurd_wish_to_wait_is_bounded(serve, monkeypatch, asked):
    monkeypatch.setattr("didgen.captions.openai_server.LONGEST_WAIT", 0.1)
    server = serve(
        lambda body, earlier: completion() if earlier else (429, b"", {"Retry-After": asked})
    )
    started = time.monotonic()
    (found,) = ask(client(server), "a")
    assert isinstance(found, ChatResponse)
    assert time.monotonic() - started < 10


def drip(start, pieces, pause=0.05):
    """Send the start at once, then the pieces, one after the other, for ever."""

    def send(connection, request):
        connection.sendall(start)
        while True:
            connection.sendall(pieces)
            time.sleep(pause)

    return send


HANGING = {
    "nothing": lambda connection, request: time.sleep(60),
    "a header that drips": drip(b"HTTP/1.1 200 OK\r\nX-A: ", b"a"),
    "headers without end": drip(b"HTTP/1.1 100 Continue\r\n", b"\r\nHTTP/1.1 100 Continue\r\n"),
    "a body that drips": drip(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b" "),
    "chunks that drip": drip(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"
    ),
    "one chunk that drips": drip(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n", b" "
    ),
}


@pytest.fixture
def serve_raw():
    servers = []

    def start(send):
        servers.append(RawServer(send))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.mark.parametrize("kind", HANGING)
def test_a_reply_that_never_ends_costs_no_more_than_the_timeout(serve_raw, kind):
    model = client(serve_raw(HANGING[kind]), timeout=0.5, retries=9)
    started = time.monotonic()
    if "body" in kind or "chunk" in kind:
        (found,) = ask(model, "a")
        reason = found.reason
    else:
        with pytest.raises(ModelError) as caught:
            ask(model, "a")
        reason = str(caught.value)
    assert "no whole answer in 0.5 s" in reason
    assert time.monotonic() - started < 0.5 + GRACE + 1


def test_all_tries_together_take_no_longer_than_the_timeout(serve):
    server = serve(lambda body, earlier: (503, b"", {}))
    started = time.monotonic()
    (found,) = ask(client(server, timeout=1, retries=1000, first_wait=0.3), "a")
    assert "status 503" in found.reason
    assert time.monotonic() - started < 2
    assert 1 < len(server.seen) < 100


def test_a_server_that_falls_silent_ends_it(serve_raw):
    def send(connection, request):
        if text_of(request) in "ab":
            connection.sendall(reply_bytes(completion()))
        else:
            time.sleep(60)

    model = client(serve_raw(send), timeout=0.3, concurrency=2)
    found = []
    with pytest.raises(ModelError, match="3 times in a row.*answers are kept"):
        for _, result in model.complete(ChatRequest("s", text) for text in "abcdefghijk"):
            found.append(result)
    assert [isinstance(one, ChatResponse) for one in found] == [True, True, False, False]


TERMINATED = """
import sys
from didgen.captions.llm import ChatRequest
from didgen.captions.openai_server import ServerModel
import signal

signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
model = ServerModel(sys.argv[1], "m", "DIDGEN_API_KEY", "text", 8, 600)
list(model.complete(ChatRequest("s", text) for text in "abc"))
"""


@pytest.mark.parametrize("kind", ["nothing", "a header that drips", "a body that drips"])
def test_a_hanging_server_does_not_hold_off_sigterm(serve_raw, kind):
    server = serve_raw(HANGING[kind])
    running = subprocess.Popen([sys.executable, "-c", TERMINATED, server.address], cwd=ROOT)
    started = time.monotonic()
    while len(server.requests) < 3 and time.monotonic() - started < 60:
        time.sleep(0.02)
    running.terminate()
    assert running.wait(10) == 143
