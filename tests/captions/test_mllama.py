"""Through transformers, with a tiny random Llama 3.2 Vision."""

import json
from dataclasses import replace

import numpy as np
import pytest

from didgen.captions.llm import ChatRequest, ChatResponse, Failure, ImageFile, ModelError
from didgen.captions.llm_captions import attributes_request, parse_attributes
from didgen.captions.mllama import TransformersModel
from didgen.runtime.files import write_png
from tests.captions.tiny_mllama import write_mllama

pytestmark = pytest.mark.slow
OPTIONS = {"model_revision": None, "batch_size": 2, "precision": "float32", "device_map": "cpu"}
CHOICE = {
    "type": "object",
    "properties": {"seen": {"enum": ["a", "b", "c", "d"]}, "more": {"enum": ["e", "f", "g"]}},
    "required": ["seen", "more"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The model's folder, with three images beside it."""
    folder = write_mllama(tmp_path_factory.mktemp("mllama"))
    for k in range(3):
        pixels = np.random.default_rng(k).integers(0, 255, (40, 56, 3), dtype=np.uint8)
        write_png(folder / f"{k}.png", pixels)
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return TransformersModel(str(folder), **OPTIONS)


def image(folder, k):
    return ImageFile.of(folder / f"{k}.png", 64)


def ask(model, *requests):
    return [result for _, result in sorted(model.complete(requests), key=lambda one: one[0])]


def test_images_are_described_by_the_schema_and_each_time_alike(model, folder):
    requests = [attributes_request(image(folder, k)) for k in range(2)]
    first = ask(model, *requests)
    for answer in first:
        assert isinstance(answer, ChatResponse)
        assert parse_attributes(answer.text, "NV").diagnosis == "NV"
        # The answer alone: nothing of the request stands before it.
        assert json.dumps(json.loads(answer.text)) == answer.text
        assert answer.answer_tokens > 20 and answer.prompt_tokens > 400
    assert [one.text for one in ask(model, *requests)] == [one.text for one in first]


def test_rows_of_a_batch_do_not_disturb_each_other(model, folder):
    """Requests of different lengths, padded, answer as each does alone."""
    texts = ("what?", "what is seen in this image of the skin?", "which one?")
    requests = [ChatRequest("s", text, CHOICE, image(folder, k)) for k, text in enumerate(texts)]
    together = [one.text for one in ask(model, *requests)]
    alone = [ask(model, request)[0].text for request in requests]
    assert together == alone


def test_the_image_counts(model, folder):
    def free(k):
        return ChatRequest("s", "what?", None, image(folder, k), max_tokens=24)

    found = ask(model, *[free(k) for k in range(3)])
    shown = {one.text if isinstance(one, ChatResponse) else one.reason for one in found}
    scores = [first_scores(model, free(k)) for k in range(2)]
    assert shown
    assert np.abs(scores[0] - scores[1]).max() > 1e-3


def first_scores(model, request):
    """The scores of the first token of an answer."""
    import torch

    with torch.inference_mode():
        return model._model(**model._inputs([request])).logits[0, -1].numpy()


def test_questions_with_and_without_an_image_can_follow_each_other(model, folder):
    with_image = ChatRequest("s", "what?", CHOICE, image(folder, 0))
    without = ChatRequest("s", "what?", CHOICE)
    results = ask(model, with_image, without, without, with_image)
    assert results[0].text == results[3].text
    assert results[1].text == results[2].text
    assert all(json.loads(one.text) for one in results)


def test_an_answer_that_does_not_end_is_a_failure(model, folder):
    assert ask(model, replace(attributes_request(image(folder, 0)), max_tokens=4)) == [
        Failure("the answer was cut off after 4 tokens")
    ]


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(ModelError, match="no vision model"):
        (tmp_path / "config.json").write_text('{"model_type": "bert"}')
        TransformersModel(str(tmp_path), **OPTIONS)
    with pytest.raises(ModelError, match="no such folder"):
        TransformersModel(str(tmp_path / "none"), **OPTIONS)


def test_the_identity_follows_the_files_contents(folder, tmp_path):
    first = TransformersModel.identify(str(folder), **OPTIONS)
    assert first == TransformersModel.identify(str(folder), **OPTIONS | {"batch_size": 9})
    write_mllama(tmp_path, seed=1)
    other = TransformersModel.identify(str(tmp_path), **OPTIONS)
    assert (
        len(
            {
                first,
                other,
                TransformersModel.identify(str(folder), **OPTIONS | {"precision": "bfloat16"}),
            }
        )
        == 3
    )
