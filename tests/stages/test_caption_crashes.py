"""The stage when llama.cpp aborts on an image, and when it is killed itself."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from didgen.data.images import read_image
from didgen.runtime.files import write_png
from didgen.stages import caption
from tests.captions.test_openai_server import Server, completion, text_of
from tests.stages.captioned_phantoms import (  # noqa: F401
    NODES,
    NOTHING,
    caption_config,
    outputs,
    phantom_manifests,
    phantoms_drawn_once,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def gguf_files(tmp_path):
    """Settings of a tiny model whose projector ends the process on images with white patches."""
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    from tests.captions.tiny_gguf import write_llama, write_projector

    model = write_llama(tmp_path / "model.gguf")
    mmproj = write_projector(tmp_path / "mmproj.gguf", white_kills=True)
    return {
        "captioner": "llama_cpp", "model": str(model), "mmproj": str(mmproj), "threads": 1,
        "context": 2048,
    }  # fmt: skip


def whiten(manifest):
    """Put a white sticker onto the manifest's first image."""
    path = manifest.parent / pd.read_csv(manifest)["image"][0]
    pixels = read_image(path).copy()
    pixels[16:48, :40] = 255
    write_png(path, pixels)


def test_llama_cpp_aborting_on_an_image_costs_that_image_alone(configure, gguf_files, manifests):
    whiten(manifests["val"])
    config = configure(**gguf_files, max_failed=0.12)
    caption.run(config)
    table, statistics, audit = outputs(config)
    assert table["captioner"].tolist() == ["measure" if k == 3 else "llama_cpp" for k in range(9)]
    figures = statistics["model"]
    assert (figures["failed"], figures["crashes"], figures["sent"]) == (1, 2, 8)
    assert "SIGABRT" in figures["failures"][table["id"][3]]
    assert audit["count"] == 8
    for text in table["claims"].drop(3):
        assert set(json.loads(text)) == set(NODES)
    # Again: the eight are found, only the failed one is tried once more.
    first = (config.out / "captions.csv").read_bytes()
    caption.run(config)
    assert (config.out / "captions.csv").read_bytes() == first
    figures = outputs(config)[1]["model"]
    assert (figures["cached"], figures["sent"], figures["failed"]) == (8, 0, 1)


RUNNER = """
import sys
from didgen.stages import caption

class Words:
    model_max_length = 77
    def __call__(self, text, **options):
        return {"input_ids": [0, *range(len(text.split())), 0]}

if __name__ == "__main__":
    caption._tokenizer = lambda backbone, revision=None: Words()
    caption.run(caption.Config.model_validate_json(sys.argv[1]))
"""


@pytest.mark.slow
def test_killed_in_the_middle_no_caption_is_lost_and_none_asked_twice(configure, tmp_path):
    def reply(body, earlier):
        time.sleep(0.3)
        return completion(json.dumps({**NOTHING, "size": "small"}))

    server = Server(reply)
    config = configure(
        captioner="openai", model="m", server=server.address, concurrency=2, max_failed=0
    )
    (tmp_path / "runner.py").write_text(RUNNER)
    command = [sys.executable, tmp_path / "runner.py", config.model_dump_json()]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    journal = tmp_path / "state" / "answers.jsonl"
    with (tmp_path / "log").open("wb") as log:
        running = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        while not (journal.exists() and journal.read_bytes().count(b"\n") >= 3):
            assert running.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.02)
        running.send_signal(signal.SIGKILL)
        running.wait()
    # What was under way may still be answered by the server, to nobody.
    time.sleep(0.5)
    kept = {json.loads(line)["key"] for line in journal.read_bytes().split(b"\n")[:-1]}
    assert 3 <= len(kept) < 9
    before = len(server.seen)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(server.seen) - before == 9 - len(kept)
    assert len(outputs(config)[0]) == 9
    asked = Counter(image_of(body) for body in server.seen)
    assert len(asked) == 9
    # At most the two that were in flight were asked twice: no answer to them was there.
    assert sum(asked.values()) - 9 <= 2
    lines = journal.read_text().splitlines()
    assert len({json.loads(line)["key"] for line in lines}) == len(lines) == 9
    server.shutdown()
    server.server_close()


def image_of(body):
    assert text_of(body)
    return body["messages"][1]["content"][0]["image_url"]["url"]
