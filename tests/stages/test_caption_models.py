"""The stage with language models: a fragile one, llama.cpp's own, and a counting server."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from didgen.captions.captioner import Answer, Failure, ModelError
from didgen.captions.questions import claim_schema
from didgen.data.files import write_png
from didgen.data.manifest import COLUMNS, write_manifest
from didgen.data.phantoms import cohort, render
from didgen.stages import asking, caption
from tests.captions.test_openai_server import Server, completion, text_of

ROOT = Path(__file__).parents[2]
NODES = claim_schema()["properties"]
NOTHING = {k: [] if node.get("type") == "array" else None for k, node in NODES.items()} | {
    "hair": "none"
}


class Words:
    """A tokenizer with one token a word, plus start and end."""

    model_max_length = 77

    def __call__(self, text, **options):
        return {"input_ids": [0, *range(len(text.split())), 0]}


class Model:
    """Answers by `reply(question)`; counts the questions, and how often it is opened."""

    def __init__(self, reply):
        self.reply, self.asked, self.opened = reply, [], 0

    def __call__(self, **settings):
        self.settings = settings
        self.opened += 1
        return self

    @staticmethod
    def identify(**settings):
        return str(settings.get("model"))

    def answer(self, questions):
        for index, question in enumerate(questions):
            self.asked.append(question)
            yield index, self.reply(question)

    def close(self):
        pass


def says(**changes):
    return Answer(json.dumps({**NOTHING, **changes}), 100, 50, 0.5)


@pytest.fixture(scope="module")
def drawn_once(tmp_path_factory):
    """Nine phantoms in three manifests."""
    folder = tmp_path_factory.mktemp("drawn")
    for split, specs in zip(
        ("train", "val", "test"), np.array_split(cohort(9, seed=3), 3), strict=True
    ):
        rows = []
        for spec in specs:
            drawn = render(spec, 64)
            write_png(folder / "images" / f"{spec.id}.png", drawn.image)
            write_png(folder / "masks" / f"{spec.id}.png", drawn.mask)
            rows.append(
                dict.fromkeys(COLUMNS, "")
                | {"id": spec.id, "image": f"images/{spec.id}.png", "split": split}
                | {"mask": f"masks/{spec.id}.png", "label": spec.label, "width": 64, "height": 64}
            )
        write_manifest(pd.DataFrame(rows), folder / f"{split}.csv")
    return folder


@pytest.fixture
def manifests(drawn_once, tmp_path):
    """The phantoms' manifests, in a folder of the test's own."""
    shutil.copytree(drawn_once, tmp_path, dirs_exist_ok=True)
    return {split: tmp_path / f"{split}.csv" for split in ("train", "val", "test")}


@pytest.fixture
def configure(manifests, tmp_path, monkeypatch):
    """Make the stage's config; the tokenizer counts words."""
    monkeypatch.setattr(caption, "_tokenizer", lambda backbone, revision=None: Words())

    def make(**settings):
        return caption.Config(
            **manifests, backbone="tiny", out=tmp_path / "captions", state=tmp_path / "state",
            workers=1, **settings,
        )  # fmt: skip

    return make


@pytest.fixture
def stand_in(configure, monkeypatch):
    """The config of an OpenAI server for which a model of this process stands."""

    def make(reply, **settings):
        model = Model(reply)
        monkeypatch.setattr("didgen.captions.captioner.load_captioner", lambda name: model)
        return model, configure(captioner="openai", model="m", **settings)

    return make


def outputs(config):
    table = pd.read_csv(config.out / "captions.csv", dtype=str, keep_default_na=False)
    statistics = json.loads((config.out / "statistics.json").read_text())
    return table, statistics, json.loads((config.out / "audit.json").read_text())


def test_captions_say_what_the_model_claims_and_the_audit_compares(stand_in):
    claims = {"size": "large", "colors": ["red", "red"], "network": "typical"}
    model, config = stand_in(lambda question: says(**claims))
    caption.run(config)
    table, statistics, audit = outputs(config)
    assert set(table["captioner"]) == {"openai"}
    assert set(table["mask_source"]) == {"not used"}
    assert set(table["size"]) == {"large"} and set(table["colors"]) == {"red"}
    assert table["caption"].str.contains("typical pigment network").all()
    assert json.loads(table["claims"][0])["colors"] == ["red", "red"]
    measured = pd.read_csv(config.out / "measured.csv", dtype=str, keep_default_na=False)
    assert measured["id"].tolist() == table["id"].tolist()
    assert set(measured["mask_source"]) == {"given"}
    assert audit["captioner"] == "openai" and audit["count"] == 9
    agreed = (measured["size"] == "large").mean()
    assert audit["attributes"]["size"]["agreement"] == pytest.approx(agreed)
    figures = statistics["model"]
    assert (figures["asked"], figures["found"], figures["failed"]) == (9, 0, 0)
    assert (figures["prompt_tokens"], figures["answer_tokens"]) == (900, 450)


def test_the_model_sees_neither_label_nor_mask(stand_in, manifests):
    model, config = stand_in(lambda question: says())
    caption.run(config)
    labels = {name for path in manifests.values() for name in pd.read_csv(path)["label"]}
    assert len(labels) > 2
    assert len({(question.system, question.text) for question in model.asked}) == 1
    assert all("images/" in str(question.image.path) for question in model.asked)
    table, _, _ = outputs(config)
    assert set(table["diagnosis"]) == labels


def test_the_second_run_asks_nothing_and_writes_the_same(stand_in):
    model, config = stand_in(lambda question: says(size="small"))
    caption.run(config)
    first = (config.out / "captions.csv").read_bytes()
    caption.run(config)
    assert (config.out / "captions.csv").read_bytes() == first
    assert (len(model.asked), model.opened) == (9, 1)
    assert outputs(config)[1]["model"]["found"] == 9


def failing(*numbers):
    """Replies of which those with these numbers are failures."""
    count = iter(range(100))
    return lambda question: Failure("it died") if next(count) in numbers else says(size="small")


def test_failed_images_get_measured_attributes_and_are_counted(stand_in):
    model, config = stand_in(failing(2, 5), max_failed=0.25)
    caption.run(config)
    table, statistics, audit = outputs(config)
    assert table["captioner"].tolist() == [
        "measure" if k in (2, 5) else "openai" for k in range(9)
    ]  # fmt: skip
    measured = pd.read_csv(config.out / "measured.csv", dtype=str, keep_default_na=False)
    assert table["size"][2] == measured["size"][2] != ""
    assert table["mask_source"][2] == "given"
    assert audit["count"] == 7
    assert statistics["captioner"] == {"openai": 7, "measure": 2}
    assert statistics["model"]["failures"] == {table["id"][2]: "it died", table["id"][5]: "it died"}


def test_too_many_failures_end_the_stage_early_and_keep_the_answers(stand_in):
    model, config = stand_in(failing(1, 2), max_failed=0.15)
    with pytest.raises(asking.TooManyFailed, match=r"2 of the first 3 of 9 .*it died.*max_failed"):
        caption.run(config)
    assert len(model.asked) == 3
    assert not (config.out / "captions.csv").exists()
    later, config = stand_in(lambda question: says(), max_failed=0.15)
    caption.run(config)
    assert len(later.asked) == 8


def test_sentences_in_the_models_words_fit_and_say_no_reserved_word(stand_in):
    def reply(question):
        if question.image is not None:
            return says(size="large")
        if "cannot be used" in question.text:
            return Answer('{"sentence": "A large lesion, red."}')
        return Answer(json.dumps({"sentence": "word " * 90}))

    model, config = stand_in(reply, sentence="model")
    caption.run(config)
    table, statistics, _ = outputs(config)
    assert set(table["caption"]) == {"A large spot, red."}
    assert statistics["tokens"]["asked_again"] == 9
    assert statistics["tokens"]["reworded"] == 9
    # Equal claims about images of one class are put into words once.
    worded = [question for question in model.asked if question.image is None]
    assert len(worded) == 2 * table["diagnosis"].nunique()


def test_where_the_model_gives_no_sentence_the_vocabulary_does(stand_in, caplog):
    def reply(question):
        return says(size="large") if question.image is not None else Failure("cut off")

    _, config = stand_in(reply, sentence="model")
    caption.run(config)
    assert outputs(config)[0]["caption"].str.startswith("A large ").all()
    assert "9 of 9 sentences are made from the vocabulary" in caplog.text


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"captioner": "openai"}, "openai needs the name"),
        ({"captioner": "llama_cpp", "model": "m.gguf"}, "belong together"),
        ({"sentence": "model"}, "measure has none"),
        ({"captioner": "transformers", "text_model": "m"}, "with `model` alone"),
        ({"captioner": "gpt"}, "measure"),
        ({"api_key_variable": "sk-123 456"}, "pattern"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, fault):
    with pytest.raises(ValidationError, match=fault):
        caption.Settings(**settings)


def test_a_model_that_is_not_there_is_an_error(configure):
    with pytest.raises(ModelError, match="no such file"):
        caption.run(configure(captioner="llama_cpp", model="/none.gguf", mmproj="/none.gguf"))


@pytest.fixture
def gguf_files(tmp_path):
    """Settings of a tiny model whose projector ends the process on images with white patches."""
    pytest.importorskip("gguf", reason="the package gguf, which writes models, is not installed")
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
    from didgen.data.images import read_image

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
    assert (figures["failed"], figures["deaths"], figures["asked"]) == (1, 2, 8)
    assert "SIGABRT" in figures["failures"][table["id"][3]]
    assert audit["count"] == 8
    for text in table["claims"].drop(3):
        assert set(json.loads(text)) == set(NODES)
    # Again: the eight are found, only the failed one is tried once more.
    first = (config.out / "captions.csv").read_bytes()
    caption.run(config)
    assert (config.out / "captions.csv").read_bytes() == first
    figures = outputs(config)[1]["model"]
    assert (figures["found"], figures["asked"], figures["failed"]) == (8, 0, 1)


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
