"""The requests and the answers to faults, against a small server of our own on this machine."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from didgen.captions.captioner import Answer, Failure, ModelError, Question
from didgen.captions.image_file import ImageFile
from didgen.captions.openai_server import ServerModel
from didgen.runtime.files import write_png


def completion(text="ok", ending="stop"):
    return {
        "choices": [{"message": {"content": text}, "finish_reason": ending}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
    }


class Server(ThreadingHTTPServer):
    """Answers with `reply(body, count of earlier requests with this text)`; notes all requests."""

    daemon_threads = True

    def __init__(self, reply):
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply, self.seen, self.headers = reply, [], []
        self.lock, self.flying, self.most = threading.Lock(), 0, 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

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


def client(server, **options):
    options = {"first_wait": 0.01, "retries": 3, "timeout": 20, **options}
    return ServerModel(server.address, "tiny", **options)


def ask(model, *texts, **options):
    """The results in the order of the questions."""
    questions = (Question("s", text, **options) for text in texts)
    return [result for _, result in sorted(model.answer(questions), key=lambda one: one[0])]


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


def test_many_are_in_flight_and_each_answer_finds_its_question(serve):
    def reply(body, earlier):
        time.sleep(0.05)
        return completion(text_of(body).upper())

    server = serve(reply)
    texts = [f"q{k}" for k in range(24)]
    found = ask(client(server, concurrency=4), *texts)
    assert [one.text for one in found] == [text.upper() for text in texts]
    assert 2 <= server.most <= 4


def test_questions_are_taken_as_they_are_needed(serve):
    server = serve(lambda body, earlier: completion())
    taken = []

    def questions():
        for k in range(50):
            taken.append(k)
            yield Question("", str(k))

    results = client(server, concurrency=3).answer(questions())
    next(results)
    assert len(taken) <= 6
    results.close()


@pytest.mark.parametrize("status", [429, 500, 503, 0])
def test_passing_faults_are_tried_again(serve, status):
    server = serve(lambda body, earlier: completion() if earlier == 2 else (status, b"", {}))
    (found,) = ask(client(server), "a")
    assert isinstance(found, Answer)
    assert len(server.seen) == 3


def test_the_servers_wish_to_wait_is_heard(serve):
    server = serve(
        lambda body, earlier: completion() if earlier else (429, b"", {"Retry-After": "1"})
    )
    started = time.monotonic()
    ask(client(server), "a")
    assert 1.0 <= time.monotonic() - started < 15


def test_a_lasting_fault_fails_its_question_alone(serve):
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
        ((200, b"<html>", {}), "expected a chat completion"),
        ((200, {"choices": []}, {}), "expected a chat completion"),
    ],
)
def test_what_is_no_whole_answer_fails_at_once(serve, reply, reason):
    server = serve(lambda body, earlier: reply)
    (found,) = ask(client(server), "a")
    assert isinstance(found, Failure)
    assert reason in found.reason
    assert len(server.seen) == 1


@pytest.mark.parametrize(("status", "told"), [(401, "DIDGEN_API_KEY is refused"), (404, "'tiny'")])
def test_what_no_question_can_mend_ends_it_without_the_key(
    serve, monkeypatch, caplog, status, told
):
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
    model = ServerModel(address, "tiny", retries=1, first_wait=0.01, timeout=5)
    with pytest.raises(ModelError, match="start the server"):
        ask(model, "a", "b")
    with pytest.raises(ModelError, match="expected an address"):
        ServerModel("localhost:8000", "tiny")


def test_the_identity_tells_servers_and_models_apart_and_hides_passwords():
    first = ServerModel.identify("http://a/v1", "m")
    assert first == ServerModel.identify("http://user:word@a/v1/", "m", concurrency=3)
    assert len({first, ServerModel.identify("http://b/v1", "m"),
                ServerModel.identify("http://a/v1", "n")}) == 3  # fmt: skip
