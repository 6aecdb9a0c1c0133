"""The stage with a language model, for which one in this process stands."""

import itertools
import json

import pandas as pd
import pytest
from pydantic import ValidationError

from didgen.captions.llm import ChatResponse, Failure, ModelError
from didgen.settings.caption import Settings as CaptionSettings
from didgen.stages import caption
from didgen.stages.caption import read_captions
from tests.captions.made_up import Words
from tests.captions.tiny_mllama import write_mllama
from tests.stages.captioned_phantoms import (  # noqa: F401
    NOTHING,
    caption_config,
    outputs,
    phantom_manifests,
    phantoms_drawn_once,
)


class Model:
    """Answers by `reply(request)`; counts the requests, and how often it is opened."""

    def __init__(self, reply):
        self.reply, self.asked, self.opened = reply, [], 0

    def __call__(self, **settings):
        self.settings = settings
        self.opened += 1
        return self

    @staticmethod
    def identify(**settings):
        return str(settings.get("model"))

    def complete(self, requests):
        for index, request in enumerate(requests):
            self.asked.append(request)
            yield index, self.reply(request)

    def close(self):
        pass


def says(**changes):
    return ChatResponse(json.dumps({**NOTHING, **changes}), 100, 50, 0.5)


@pytest.fixture
def stand_in(configure, monkeypatch):
    """The config of an OpenAI server for which a model of this process stands."""

    def make(reply, **settings):
        model = Model(reply)
        monkeypatch.setattr("didgen.captions.client.load_captioner", lambda name: model)
        return model, configure(captioner="openai", model="m", **settings)

    return make


def test_captions_say_what_the_model_claims_and_the_audit_compares(stand_in, caplog):
    caplog.set_level("INFO")
    claims = {"size": "large", "colors": ["red", "red"], "network": "typical"}
    model, config = stand_in(lambda request: says(**claims))
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
    assert (figures["sent"], figures["cached"], figures["failed"]) == (9, 0, 0)
    assert (figures["prompt_tokens"], figures["answer_tokens"]) == (900, 450)
    assert figures["tokens_per_second"] == pytest.approx(450 / figures["wall"])
    (told,) = [text for text in caplog.messages if "tokens/s" in text]
    assert told.startswith("9 answers of the model, 0 from")


def test_the_model_sees_neither_label_nor_mask(stand_in, manifests):
    model, config = stand_in(lambda request: says())
    caption.run(config)
    labels = {name for path in manifests.values() for name in pd.read_csv(path)["label"]}
    assert len(labels) > 2
    assert len({(request.system, request.text) for request in model.asked}) == 1
    assert all("images/" in str(request.image.path) for request in model.asked)
    table, _, _ = outputs(config)
    assert set(table["diagnosis"]) == labels


def test_the_second_run_asks_nothing_and_writes_the_same(stand_in):
    model, config = stand_in(lambda request: says(size="small"))
    caption.run(config)
    first = (config.out / "captions.csv").read_bytes()
    caption.run(config)
    assert (config.out / "captions.csv").read_bytes() == first
    assert (len(model.asked), model.opened) == (9, 1)
    assert outputs(config)[1]["model"]["cached"] == 9


def failing(*numbers):
    """Replies of which those with these numbers are failures."""
    count = iter(range(100))
    return lambda request: Failure("it died") if next(count) in numbers else says(size="small")


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
    with pytest.raises(caption.TooManyFailed, match=r"2 of the first 3 of 9 .*it died.*max_failed"):
        caption.run(config)
    assert len(model.asked) == 3
    assert not (config.out / "captions.csv").exists()
    later, config = stand_in(lambda request: says(), max_failed=0.15)
    caption.run(config)
    assert len(later.asked) == 8


def test_sentences_in_the_models_words_fit_and_say_no_reserved_word(stand_in):
    def reply(request):
        if request.image is not None:
            return says(size="large")
        if "cannot be used" in request.text:
            return ChatResponse('{"sentence": "A large lesion, red."}')
        return ChatResponse(json.dumps({"sentence": "word " * 90}))

    model, config = stand_in(reply, sentence="model")
    caption.run(config)
    table, statistics, _ = outputs(config)
    assert set(table["caption"]) == {"A large spot, red."}
    assert statistics["tokens"]["asked_again"] == 9
    assert statistics["tokens"]["reworded"] == 9
    figures = statistics["model"]["sentences"]
    assert figures["from_vocabulary"] == 0 and figures["sent"] == len(model.asked) - 9
    # Equal claims about images of one class are put into words once.
    worded = [request for request in model.asked if request.image is None]
    assert len(worded) == 2 * table["diagnosis"].nunique()


def test_where_the_model_gives_no_sentence_the_vocabulary_does(stand_in, caplog):
    def reply(request):
        return says(size="large") if request.image is not None else Failure("cut off")

    model, config = stand_in(reply, sentence="model")
    caption.run(config)
    assert outputs(config)[0]["caption"].str.startswith("A large ").all()
    assert "9 of 9 sentences are made from the vocabulary: cut off (9)" in caplog.text
    figures = outputs(config)[1]["model"]["sentences"]
    assert (figures["from_vocabulary"], figures["failures"]) == (9, {"cut off": 9})
    # A sentence from the vocabulary is not sent back to the model that gave none.
    assert not [request for request in model.asked if "cannot be used" in request.text]


HOSTILE_ANSWERS = [
    '{"size": "\\ud800"}',
    '{"\\ud800": 1}',
    "\ud800",
    "[" * 100_000,
    '{"size": ' + "[" * 100_000 + "}",
    '\x00\x1b[2J\r\n,"',
    '{"sentence": "\\u0000"}',
    '{"sentence": ""}',
    '{"sentence": "..."}',
]


def test_hostile_answers_end_no_run_and_no_rerun(stand_in):
    answers = itertools.cycle(HOSTILE_ANSWERS)

    def reply(request):
        asked_again = "refused" in request.text
        return says(size="large") if asked_again and request.image else ChatResponse(next(answers))

    model, config = stand_in(reply, sentence="model", retries=1)
    caption.run(config)
    first = (config.out / "captions.csv").read_bytes()
    table, statistics, _ = outputs(config)
    assert set(table["captioner"]) == {"openai"}
    assert table["caption"].str.startswith("A large ").all()
    assert statistics["model"]["sentences"]["from_vocabulary"] == 9
    before = len(model.asked)
    caption.run(config)
    assert (config.out / "captions.csv").read_bytes() == first
    assert len(model.asked) == before


def test_hostile_answers_to_all_tries_leave_the_measured_attributes(stand_in):
    answers = itertools.cycle(HOSTILE_ANSWERS)
    _, config = stand_in(lambda request: ChatResponse(next(answers)), max_failed=1, retries=0)
    caption.run(config)
    table, statistics, _ = outputs(config)
    assert set(table["captioner"]) == {"measure"} and len(table) == 9
    assert all(reason.isprintable() for reason in statistics["model"]["failures"].values())
    assert read_captions(config.out / "captions.csv", table["id"]).tolist() == [*table["caption"]]


def test_a_sentence_of_which_no_word_fits_becomes_no_caption(stand_in, monkeypatch):
    monkeypatch.setattr(Words, "count", lambda self, text: len(text.split()) + len(text) // 40)
    worded = json.dumps({"sentence": "a" * 4_000})
    _, config = stand_in(
        lambda request: says(size="large") if request.image else ChatResponse(worded),
        sentence="model",
    )
    caption.run(config)
    table, statistics, _ = outputs(config)
    assert table["caption"].str.startswith("A large ").all()
    figures = statistics["model"]["sentences"]
    assert figures["from_vocabulary"] == 9 and "word that fits" in str(figures["failures"])


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"captioner": "openai"}, "openai needs the name"),
        ({"captioner": "llama_cpp", "model": "m.gguf"}, "belong together"),
        ({"sentence": "model"}, "measure has none"),
        ({"captioner": "transformers", "text_model": "m"}, "with `model` alone"),
        ({"captioner": "gpt"}, "measure"),
        ({"api_key_variable": "sk-123 456"}, "pattern"),
        ({"server": "localhost:8000"}, "found 'localhost:8000', expected an address"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, fault):
    with pytest.raises(ValidationError, match=fault):
        CaptionSettings(**settings)


@pytest.mark.slow
def test_a_vision_model_of_transformers_describes_and_words_all_images(configure, tmp_path):
    folder = write_mllama(tmp_path / "mllama")
    config = configure(
        captioner="transformers", model=str(folder), precision="float32", device_map="cpu",
        batch_size=9, sentence="model", retries=0,
    )  # fmt: skip
    caption.run(config)
    table, statistics, audit = outputs(config)
    assert set(table["captioner"]) == {"transformers"} and audit["count"] == 9
    figures, worded = statistics["model"], statistics["model"]["sentences"]
    assert (figures["sent"], figures["failed"], figures["crashes"]) == (9, 0, 0)
    assert worded["from_vocabulary"] == 0 and 0 < worded["sent"] <= 9
    assert figures["tokens_per_second"] > 0 < worded["tokens_per_second"]
    first = (config.out / "captions.csv").read_bytes()
    caption.run(config)
    assert (config.out / "captions.csv").read_bytes() == first
    figures = outputs(config)[1]["model"]
    assert (figures["sent"], figures["cached"], figures["sentences"]["sent"]) == (0, 9, 0)
    assert figures["tokens_per_second"] is None


def test_a_model_that_is_not_there_is_an_error(configure):
    with pytest.raises(ModelError, match="no such file"):
        caption.run(configure(captioner="llama_cpp", model="/none.gguf", mmproj="/none.gguf"))
