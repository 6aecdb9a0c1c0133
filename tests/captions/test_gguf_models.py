"""Through the real llama.cpp, with tiny random models."""

import json
import resource
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

from didgen.captions.gguf_models import GgufModel
from didgen.captions.isolated import IsolatedModel
from didgen.captions.llm import ChatRequest, Failure, ImageFile, ModelError
from didgen.captions.llm_captions import attributes_request, parse_attributes, parse_sentence
from didgen.captions.llm_captions import sentence_request as sentence
from didgen.captions.openai_server import ServerModel
from didgen.runtime.files import write_png
from tests.captions.tiny_gguf import PARTS_TEMPLATE, TEXT_TEMPLATE, write_llama, write_projector

TARGET = "didgen.captions.gguf_models:GgufModel"
CHOICE = {
    "type": "object",
    "properties": {"seen": {"enum": ["a", "b", "c", "d"]}, "more": {"enum": ["e", "f", "g"]}},
    "required": ["seen", "more"],
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model, its projector and three images."""
    folder = tmp_path_factory.mktemp("gguf")
    started = time.monotonic()
    write_llama(folder / "model.gguf")
    write_projector(folder / "mmproj.gguf")
    assert time.monotonic() - started < 60
    for k in range(3):
        pixels = np.random.default_rng(k).integers(0, 200, (40, 56, 3), dtype=np.uint8)
        write_png(folder / f"{k}.png", pixels)
    return folder


def settings(files, **changes):
    """Two threads spin on a busy machine, so one."""
    return {
        "model": str(files / "model.gguf"), "mmproj": str(files / "mmproj.gguf"), "threads": 1,
        "context": 2048, "chat_format": "llama-3", "gpu_layers": -1, **changes,
    }  # fmt: skip


@pytest.fixture(scope="module")
def model(files):
    """The model in this process: nothing that these tests ask of it ends a process."""
    model = GgufModel(**settings(files))
    yield model
    model.close()


def image(files, k):
    return ImageFile.of(files / f"{k}.png", 64)


def ask(model, *requests):
    return [result for _, result in model.complete(requests)]


def test_images_are_described_by_the_schema_and_each_time_alike(model, files):
    requests = [attributes_request(image(files, k)) for k in range(3)]
    first = ask(model, *requests)
    for answer in first:
        assert parse_attributes(answer.text, "NV").diagnosis == "NV"
        # Written in the one way that the grammar allows, so nothing of it is lost.
        assert json.dumps(json.loads(answer.text)) == answer.text
        assert answer.answer_tokens > 20 and answer.prompt_tokens > 400
    assert len({answer.text for answer in first}) > 1
    # In another process, in another order.
    with IsolatedModel(TARGET, settings(files), 1, 1, 600) as other:
        again = [result.text for _, result in other.complete(requests[::-1])]
    assert again[::-1] == [answer.text for answer in first]


def test_the_image_counts(model, files):
    """The same request about other pixels, or none, gives other words sooner or later."""
    image_questions = [ChatRequest("s", "what?", CHOICE, image(files, k)) for k in range(3)]
    texts = {answer.text for answer in ask(model, *image_questions)}
    no_image = [ChatRequest("s", f"what {k}?", CHOICE) for k in range(3)]
    assert len(texts | {answer.text for answer in ask(model, *no_image)}) > 1


def test_a_drawn_answer_depends_on_its_seed_alone(model):
    drawn = [ChatRequest("s", "what?", CHOICE, None, 64, 1.5, seed) for seed in range(6)]
    texts = [answer.text for answer in ask(model, *drawn, *drawn)]
    assert texts[:6] == texts[6:]
    assert len(set(texts)) > 1


def test_sentences_are_written_without_an_image(model):
    attributes = parse_attributes(ask_claims(), "MEL")
    (answer,) = ask(model, sentence(attributes))
    text = parse_sentence(answer.text)
    assert 1 <= len(text) <= 300
    assert text.isascii() and text.isprintable()


def ask_claims():
    from didgen.captions.llm_captions import response_schema

    nodes = response_schema()["properties"]
    claims = {k: [] if node.get("type") == "array" else None for k, node in nodes.items()}
    return json.dumps({**claims, "hair": "none", "size": "small"})


def test_memory_stays_bounded(model, files):
    request = ChatRequest("s", "what?", CHOICE, image(files, 0))
    ask(model, *[request] * 5)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len({one.text for one in ask(model, *[request] * 60)}) == 1
    # 60 images' embeddings, pixels and grammars would be more than 20 MB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8_000


def test_what_cannot_be_answered_fails_and_the_next_question_is_answered(model, files, tmp_path):
    write_png(tmp_path / "small.png", np.zeros((40, 40, 3), dtype=np.uint8))
    gone = ImageFile.of(tmp_path / "small.png", 64)
    gone.path.write_bytes(b"no image")
    good = ChatRequest("s", "what?", CHOICE, image(files, 0))
    results = ask(
        model,
        ChatRequest("s", "what? " * 2000, CHOICE),
        ChatRequest("s", "<__media__>", CHOICE),
        replace(attributes_request(image(files, 0)), max_tokens=5),
        ChatRequest("s", "what?", CHOICE, gone),
        ChatRequest("s", "what?", {"type": "integer"}),
        good,
    )
    reasons = [one.reason for one in results[:-1]]
    assert "exceed" in reasons[0]
    assert "stands for an image" in reasons[1]
    assert "cut off after 5 tokens" in reasons[2]
    assert "small.png" in reasons[3]
    assert "write numbers as an enum" in reasons[4]
    assert results[-1].text


def test_files_that_are_wrong_are_named(files, tmp_path):
    (tmp_path / "empty.gguf").write_bytes(b"")
    with pytest.raises(ModelError, match="no such file"):
        GgufModel(**settings(files, model=str(tmp_path / "none.gguf")))
    with pytest.raises(ModelError, match=r"cannot load .*empty\.gguf"):
        GgufModel(**settings(files, model=str(tmp_path / "empty.gguf")))
    with pytest.raises(ModelError, match="belong together"):
        GgufModel(**settings(files, mmproj=str(files / "model.gguf")))


def test_a_projector_that_crashes_llama_cpp_is_an_error_of_the_model(files, tmp_path):
    write_projector(tmp_path / "broken.gguf", without="mm.0.weight")
    broken = settings(files, mmproj=str(tmp_path / "broken.gguf"))
    with (
        IsolatedModel(TARGET, broken, 1, 1, 600) as model,
        pytest.raises(ModelError, match="while loading.*SIG"),
    ):
        ask(model, ChatRequest("s", "what?", CHOICE))


def test_a_template_for_text_alone_is_refused_where_the_files_own_is_asked_for(files, tmp_path):
    with pytest.raises(ModelError, match="takes text alone"):
        GgufModel(**settings(files, chat_format="mtmd"))
    write_llama(tmp_path / "parts.gguf", template=PARTS_TEMPLATE)
    model = GgufModel(**settings(files, model=str(tmp_path / "parts.gguf"), chat_format="mtmd"))
    assert ask(model, ChatRequest("s", "what?", CHOICE, image(files, 0)))[0].text
    model.close()


def test_a_text_model_words_sentences_and_sees_nothing(files):
    model = GgufModel(**settings(files, mmproj=None))
    assert ask(model, ChatRequest("s", "what?", CHOICE))[0].text
    with pytest.raises(ModelError, match="no mmproj"):
        ask(model, ChatRequest("s", "what?", CHOICE, image(files, 0)))
    model.close()


def test_the_identity_follows_the_files_contents(files, tmp_path):
    first = GgufModel.identify(**settings(files))
    write_llama(tmp_path / "model.gguf")
    assert GgufModel.identify(**settings(files, model=str(tmp_path / "model.gguf"))) == first
    write_llama(tmp_path / "model.gguf", seed=1)
    others = {
        GgufModel.identify(**settings(files, model=str(tmp_path / "model.gguf"))),
        GgufModel.identify(**settings(files, mmproj=None)),
        GgufModel.identify(**settings(files, chat_format="mtmd")),
    }
    assert len(others | {first}) == 4


@pytest.fixture(scope="module")
def server(files, tmp_path_factory):
    """llama-cpp-python's own server with the tiny model, on loopback."""
    pytest.importorskip("fastapi", reason="the extras of llama-cpp-python[server] are missing")
    folder = tmp_path_factory.mktemp("server")
    write_llama(folder / "parts.gguf", template=PARTS_TEMPLATE)
    port = free_port()
    command = [
        sys.executable, "-m", "llama_cpp.server", "--model", folder / "parts.gguf",
        "--clip_model_path", files / "mmproj.gguf", "--chat_format", "mtmd", "--n_ctx", "2048",
        "--n_threads", "1", "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}/v1"
    try:
        wait_for(f"{address}/models", process, folder / "log")
        yield address
    finally:
        process.kill()
        process.wait()


def free_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(url: str, process: subprocess.Popen, log: Path) -> None:
    for _ in range(600):
        if process.poll() is not None:
            pytest.fail(f"the server ended: {log.read_text()[-2000:]}")
        try:
            urllib.request.urlopen(url, timeout=5)
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    pytest.fail("the server did not start within two minutes")


@pytest.mark.slow
def test_through_llama_cpp_pythons_own_server(server, files):
    model = ServerModel(server, "tiny", "DIDGEN_API_KEY", "json_object", 2, 120)
    requests = [attributes_request(image(files, k)) for k in (0, 1, 0)]
    answers = dict(model.complete(requests))
    assert not any(isinstance(answer, Failure) for answer in answers.values()), answers
    assert answers[0].text == answers[2].text
    for answer in answers.values():
        assert parse_attributes(answer.text, None).diagnosis is None
        assert answer.prompt_tokens > 400 and answer.answer_tokens > 20


def test_the_template_of_llama_3s_text_files_takes_no_parts():
    """What the refusal above is for: the list of parts would be printed as text."""
    from jinja2 import Environment

    parts = [{"type": "text", "text": "seen"}]
    text = (
        Environment().from_string(TEXT_TEMPLATE).render(messages=[{"role": "u", "content": parts}])
    )
    assert "'type': 'text'" in text
