import json

import numpy as np
import pytest

from didgen.captions.captioner import Answer, Failure
from didgen.captions.few_shot import few_shot_question, write_prompts
from didgen.captions.recombine import ClassCaptions
from tests.captions.made_up import Words
from tests.captions.test_recombine import attributes_like_a_class

LONG = Words(200)


@pytest.fixture(scope="module")
def captions():
    return ClassCaptions.of("MEL", attributes_like_a_class(30))


def answer_like(question, **changes):
    """The first example of the question, with changes."""
    example = json.loads(question.text.splitlines()[1])
    return Answer(json.dumps(example | changes))


def test_the_question_shows_examples_of_the_class_and_the_values(captions):
    question, ids = few_shot_question(captions, np.random.default_rng(0), examples=4)
    lines = question.text.splitlines()
    own = dict(zip(captions.ids, captions.attributes, strict=True))
    assert len(ids) == 4 and "melanoma" in lines[0]
    for line, name in zip(lines[1:5], ids, strict=True):
        shown = json.loads(line)
        assert list(shown) == list(question.schema["properties"]) and "diagnosis" not in shown
        assert shown["size"] == own[name].size
    assert '"size": "small", "medium", "large" or null' in question.text
    assert question.temperature > 0 and question.image is None
    again, _ = few_shot_question(captions, np.random.default_rng(1), examples=4)
    assert again.seed != question.seed and again.digest() != question.digest()


def test_answers_become_prompts_in_a_fixed_order(captions):
    def model(questions, turned):
        answers = [
            (k, answer_like(q, artifacts=["ruler"], vessels=["comma"], network="atypical"))
            for k, q in enumerate(questions)
        ]
        yield from reversed(answers) if turned else answers

    made, counts = write_prompts(captions, 6, LONG, 0, lambda q: model(q, False))
    turned, _ = write_prompts(captions, 6, LONG, 0, lambda q: model(q, True))
    assert made == turned and len(made) == 6
    written = [prompt for prompt in made if prompt.origin == "language model"]
    assert len(written) == counts.made - counts.fallbacks + counts.repeated
    for prompt in written:
        assert "atypical pigment network, comma vessels" in prompt.caption
        assert len(prompt.parent_ids) == 6
    assert write_prompts(captions, 6, LONG, 1, lambda q: model(q, False))[0] != made


def test_what_is_wrong_is_asked_again_and_then_recombined(captions):
    rounds = []

    def model(questions):
        questions = list(questions)
        rounds.append(questions)
        for k, question in enumerate(questions):
            faulty = len(rounds) == 1 or k == 0
            yield k, Answer("I cannot.") if faulty else answer_like(question, vessels=["crown"])

    prompts, counts = write_prompts(captions, 3, LONG, 0, model, tries=2)
    assert [len(questions) for questions in rounds] == [3, 3]
    assert counts.invalid == 4 and counts.fallbacks == 1
    assert [prompt.origin for prompt in prompts] == ["recombined", *["language model"] * 2]
    assert {q.seed for q in rounds[0]}.isdisjoint({q.seed for q in rounds[1]})


def test_failures_and_repeats_fall_back_and_are_counted(captions, caplog):
    prompts, counts = write_prompts(
        captions, 2, LONG, 0, lambda q: ((k, Failure("died")) for k, _ in enumerate(q)), tries=1
    )
    assert counts.unanswered == counts.fallbacks == 2 and len(prompts) == 2
    assert "MEL: 2 of 2 prompts are recombined in place of the model's" in caplog.text
    assert "2 did not come, 0 near-duplicates; died: 2" in caplog.text
    _, counts = write_prompts(
        captions, 2, LONG, 0, lambda q: ((k, answer_like(one)) for k, one in enumerate(q)), tries=1
    )
    assert counts.fallbacks == 2 and counts.near_duplicates >= 2
