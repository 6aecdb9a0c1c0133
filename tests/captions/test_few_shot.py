import json

import numpy as np
import pytest

from didgen.captions.few_shot import few_shot_request, write_prompts
from didgen.captions.llm import ChatResponse, Failure
from didgen.captions.recombine import ClassCaptions
from didgen.settings.prompts import Settings
from tests.captions.made_up import Words
from tests.captions.test_recombine import attributes_like_a_class

LONG = Words(200)


@pytest.fixture(scope="module")
def captions():
    return ClassCaptions.of("MEL", attributes_like_a_class(30))


def answer_like(request, **changes):
    """The first example of the request, with changes."""
    example = json.loads(request.text.splitlines()[1])
    return ChatResponse(json.dumps(example | changes))


def test_the_question_shows_examples_of_the_class_and_the_values(captions):
    request, ids = few_shot_request(captions, np.random.default_rng(0), 4, 0.8)
    lines = request.text.splitlines()
    own = dict(zip(captions.ids, captions.attributes, strict=True))
    assert len(ids) == 4 and "melanoma" in lines[0]
    for line, name in zip(lines[1:5], ids, strict=True):
        shown = json.loads(line)
        assert list(shown) == list(request.schema["properties"]) and "diagnosis" not in shown
        assert shown["size"] == own[name].size
    assert '"size": "small", "medium", "large" or null' in request.text
    assert request.temperature > 0 and request.image is None
    again, _ = few_shot_request(captions, np.random.default_rng(1), 4, 0.8)
    assert again.seed != request.seed and again.digest() != request.digest()


def test_answers_become_prompts_in_a_fixed_order(captions):
    def model(requests, turned):
        answers = [
            (k, answer_like(q, artifacts=["ruler"], vessels=["comma"], network="atypical"))
            for k, q in enumerate(requests)
        ]
        yield from reversed(answers) if turned else answers

    made, counts = write_prompts(captions, 6, LONG, 0, lambda q: model(q, False), Settings())
    turned, _ = write_prompts(captions, 6, LONG, 0, lambda q: model(q, True), Settings())
    assert made == turned and len(made) == 6
    written = [prompt for prompt in made if prompt.origin == "language model"]
    assert len(written) == counts.made - counts.fallbacks + counts.repeated
    for prompt in written:
        assert "atypical pigment network, comma vessels" in prompt.caption
        assert len(prompt.parent_ids) == 6
    assert write_prompts(captions, 6, LONG, 1, lambda q: model(q, False), Settings())[0] != made


def test_what_is_wrong_is_asked_again_and_then_recombined(captions):
    rounds = []

    def model(requests):
        requests = list(requests)
        rounds.append(requests)
        for k, request in enumerate(requests):
            faulty = len(rounds) == 1 or k == 0
            yield (
                k,
                ChatResponse("I cannot.") if faulty else answer_like(request, vessels=["crown"]),
            )

    prompts, counts = write_prompts(captions, 3, LONG, 0, model, Settings(tries=2))
    assert [len(requests) for requests in rounds] == [3, 3]
    assert counts.invalid == 4 and counts.fallbacks == 1
    assert [prompt.origin for prompt in prompts] == ["recombined", *["language model"] * 2]
    assert {q.seed for q in rounds[0]}.isdisjoint({q.seed for q in rounds[1]})


def test_failures_and_repeats_fall_back_and_are_counted(captions, caplog):
    prompts, counts = write_prompts(
        captions,
        2,
        LONG,
        0,
        lambda q: ((k, Failure("died")) for k, _ in enumerate(q)),
        Settings(tries=1),
    )
    assert counts.unanswered == counts.fallbacks == 2 and len(prompts) == 2
    assert "MEL: 2 of 2 prompts are recombined in place of the model's" in caplog.text
    assert "2 did not come, 0 near-duplicates; died: 2" in caplog.text
    _, counts = write_prompts(
        captions,
        2,
        LONG,
        0,
        lambda q: ((k, answer_like(one)) for k, one in enumerate(q)),
        Settings(tries=1),
    )
    assert counts.fallbacks == 2 and counts.near_duplicates >= 2
