"""Whatever a server sends: a result or a clear error within the time, and a journal that is whole.

`REPLIES` examples of what the body says, `STREAMS` of the bytes on the wire.
"""

import json
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from didgen.captions.client import Journal, ModelClient
from didgen.captions.llm import ModelError
from didgen.captions.llm_captions import (
    InvalidResponse,
    parse_attributes,
    response_schema,
    word,
)
from didgen.captions.openai_server import GRACE, LARGEST_REPLY, ServerModel
from tests.captions.made_up import any_attributes
from tests.captions.raw_server import RawServer, reply_bytes
from tests.captions.test_openai_server import OPTIONS

REPLIES, STREAMS = 200, 100
TIMEOUT = 0.4
FIXTURES = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
# Letters with halves of surrogate pairs, control characters, and what JSON and CSV have a use for.
letters = st.characters() | st.sampled_from('\ud800\udfff\x00\x1b\r\n",;{}[]\\\u202e')
texts = st.text(letters, max_size=30)
numbers = st.integers(-(10**30), 10**30) | st.floats() | st.booleans() | st.none()
junk = st.recursive(
    numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
deep = st.integers(1, 50_000).map(lambda depth: "[" * depth)


def claims_with(changes):
    """An answer with the keys that are asked for, some of them with odd values."""
    known = {name: None for name in response_schema()["properties"]} | {"hair": "none"}
    return json.dumps({**known, **changes})


words = st.sampled_from([*response_schema()["properties"], "sentence"]) | texts
answers = (
    texts
    | deep
    | st.dictionaries(words, junk, max_size=6).map(claims_with)
    | st.fixed_dictionaries({"sentence": texts | junk}).map(json.dumps)
)


@st.composite
def completions(draw):
    """A chat completion of which any part may be anything, or missing."""
    message = draw(
        st.fixed_dictionaries({}, optional={"content": answers | junk, "role": junk}) | junk
    )
    choice = draw(
        st.fixed_dictionaries(
            {"message": st.just(message), "finish_reason": st.just("stop") | junk},
            optional={"index": junk},
        )
        | junk
    )
    counts = {"prompt_tokens": junk, "completion_tokens": junk}
    usage = st.fixed_dictionaries({}, optional=counts) | junk
    return draw(
        st.fixed_dictionaries(
            {"choices": st.just([choice]) | junk},
            optional={"usage": usage, "error": junk},
        )
        | junk
    )


bodies = (
    completions().map(lambda body: json.dumps(body).encode())
    | st.binary(max_size=200)
    | deep.map(str.encode)
    | st.just(b" " * (LARGEST_REPLY + 1))
)
statuses = st.sampled_from([200, 200, 200, 204, 206, 304, 400, 404, 418, 429, 500, 999])
headers = st.dictionaries(
    st.sampled_from(
        ["Content-Type", "Content-Encoding", "Retry-After", "Location", "Set-Cookie", "Connection",
         "Transfer-Encoding", "Content-Length", "X-Any"]
    ),
    st.sampled_from(
        [b"gzip", b"deflate", b"br", b"chunked", b"-1", b"9" * 40, b"close", b"keep-alive",
         b"a=b; Domain=..", b"text/html; charset=\xff"]
    )
    | st.binary(max_size=20),
    max_size=4,
)  # fmt: skip


@st.composite
def streams(draw):
    """What stands on the wire, in pieces with pauses between them."""
    body = draw(bodies)
    lines = [b"HTTP/1.1 %d X" % draw(statuses)]
    lines += [name.encode() + b": " + value for name, value in draw(headers).items()]
    if draw(st.booleans()):
        lines.append(b"Content-Length: %d" % draw(st.sampled_from([len(body), 0, 10**9])))
    chunk = draw(
        st.sampled_from([b"%x\r\n" % len(body), b"-5\r\n", b"zz\r\n", b"f" * 30 + b"\r\n"])
    )
    whole = draw(
        st.sampled_from(
            [b"\r\n".join([*lines, b"", body]), b"\r\n".join([*lines, b"", chunk + body])]
        )
        | st.binary(max_size=100)
    )
    return whole[: draw(st.none() | st.integers(0, len(whole)))], draw(
        st.sampled_from([0, 0, 0, 60])
    )


@pytest.fixture(scope="module")
def server():
    """A server whose `reply` is set to the bytes and the seconds before it hangs up."""

    def send(connection, request):
        data, pause = made.reply
        connection.sendall(data)
        time.sleep(pause)

    made = RawServer(send)
    yield made
    made.close()


def ask(server, journal, attributes):
    """The sentence that the server words, or why there is none."""
    model = ServerModel(server.address, "m", **OPTIONS | {"retries": 1, "timeout": TIMEOUT})
    with ModelClient("m", lambda: model, journal) as client:
        (one,) = word([attributes], client, tries=2)
    return one


def assert_answer_or_clear_failure(server, folder, attributes, caplog):
    """Ask, and ask again as a later run would."""
    started = time.monotonic()
    # Two questions at most, each within its time; generous, for a machine that is busy.
    most = 2 * (TIMEOUT + GRACE) + 20
    try:
        first = ask(server, Journal(folder), attributes)
    except ModelError as error:
        assert str(error).isprintable()
        first = None
    assert time.monotonic() - started < most
    if first is not None:
        assert bool(first.value) != bool(first.failure)
        assert first.failure.isprintable() and len(first.failure) < 1_000
        (first.value or "").encode()
    kept = Journal(folder)
    lines = kept.path.read_bytes().splitlines() if kept.path.exists() else []
    assert len(kept) == len(lines)
    if first is not None and first.value:
        # Nothing is asked again.
        before = len(server.requests)
        assert ask(server, Journal(folder), attributes) == first
        assert len(server.requests) == before
    assert "Traceback" not in caplog.text


@settings(max_examples=REPLIES, deadline=None, suppress_health_check=FIXTURES)
@given(body=bodies, status=statuses, attributes=any_attributes())
def test_any_reply_is_an_answer_or_a_clear_failure(
    server, tmp_path_factory, caplog, body, status, attributes
):
    server.reply = (reply_bytes(body, b"%d X" % status), 0)
    assert_answer_or_clear_failure(server, tmp_path_factory.mktemp("journal"), attributes, caplog)


@settings(max_examples=STREAMS, deadline=None, suppress_health_check=FIXTURES)
@given(reply=streams(), attributes=any_attributes())
def test_any_bytes_on_the_wire_are_an_answer_or_a_clear_failure(
    server, tmp_path_factory, caplog, reply, attributes
):
    server.reply = reply
    assert_answer_or_clear_failure(server, tmp_path_factory.mktemp("journal"), attributes, caplog)


@settings(max_examples=REPLIES, deadline=None)
@given(text=answers)
def test_any_answer_is_read_or_refused(text):
    try:
        parse_attributes(text, "NV").model_dump_json().encode()
    except InvalidResponse as error:
        assert str(error).isprintable() and len(str(error)) < 3_000
