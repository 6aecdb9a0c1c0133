import itertools
import json

import numpy as np
import pytest

from didgen.captions.attributes import Attributes
from didgen.captions.captioner import Answer, Failure, Question
from didgen.captions.interview import Interview, Reading, Subject, Tally, describe, word
from didgen.captions.journal import Journal
from didgen.captions.questions import claim_schema
from didgen.runtime.files import write_png

SIZES = ("small", "medium", "large")


class Scripted:
    """Answers what `reply` gives for a question; counts and remembers the questions."""

    def __init__(self, reply):
        self.reply, self.questions, self.opened, self.closed = reply, [], 0, 0

    def answer(self, questions):
        # In the reverse order of pairs: results may come in any order.
        numbered = enumerate(questions)
        while pair := list(itertools.islice(numbered, 2)):
            for index, question in reversed(pair):
                self.questions.append(question)
                yield index, self.reply(question)

    def close(self):
        self.closed += 1

    def open(self):
        self.opened += 1
        return self


def nothing(**changes):
    """A valid answer that knows nothing, but for the changes."""
    properties = claim_schema()["properties"]
    claims = {k: [] if node.get("type") == "array" else None for k, node in properties.items()}
    return Answer(json.dumps({**claims, "hair": "none", **changes}), 10, 5, 0.5)


def size_of(question):
    """An answer that says of an image what its brightness says."""
    return nothing(size=SIZES[question.image.pixels()[0, 0, 0] // 100])


@pytest.fixture
def subjects(tmp_path):
    """Six images of three sizes, told by their brightness; all differ, but for the last two."""
    made = []
    for k in range(6):
        pixels = np.full((40, 40, 3), 100 * (min(k, 4) % 3) + min(k, 4), dtype=np.uint8)
        write_png(tmp_path / f"{k}.png", pixels)
        made.append(Subject(f"i{k}", tmp_path / f"{k}.png", "NV" if k else None))
    return made


def described(model, subjects, folder, **options):
    """The descriptions by id, and the interview's tally."""
    with Interview("m", model.open, Journal(folder)) as interview:
        found = list(describe(subjects, interview, 32, **options))
    assert len(found) == len({one.id for one in found})
    return {one.id: one for one in found}, interview.tally


def test_each_image_gets_its_own_claims_and_label(subjects, tmp_path):
    model = Scripted(size_of)
    found, tally = described(model, subjects, tmp_path / "j")
    assert [found[f"i{k}"].attributes.size for k in range(6)] == [
        *SIZES, "small", "medium", "medium",
    ]  # fmt: skip
    assert found["i0"].attributes.diagnosis is None
    assert found["i1"].attributes.diagnosis == "NV"
    assert (model.opened, model.closed) == (1, 1)
    # The last two files are equal: asked once.
    assert len(model.questions) == tally.asked == 5
    assert (tally.answer_tokens, tally.prompt_tokens, tally.seconds) == (25, 50, 2.5)


def test_the_second_run_opens_no_model(subjects, tmp_path):
    first, _ = described(Scripted(size_of), subjects, tmp_path / "j")
    model = Scripted(size_of)
    second, tally = described(model, subjects, tmp_path / "j")
    assert second == first
    assert (model.opened, tally.asked, tally.found) == (0, 0, 6)


def test_another_model_image_or_side_is_asked_anew(subjects, tmp_path):
    described(Scripted(size_of), subjects, tmp_path / "j")
    write_png(subjects[0].image, np.full((40, 40, 3), 200, dtype=np.uint8))
    model = Scripted(size_of)
    found, _ = described(model, subjects, tmp_path / "j")
    assert len(model.questions) == 1
    assert found["i0"].attributes.size == "large"
    with Interview("other", model.open, Journal(tmp_path / "j")) as interview:
        list(describe(subjects, interview, 32))
    assert len(model.questions) == 1 + 5


def test_a_broken_off_run_loses_no_answer_and_asks_none_twice(subjects, tmp_path):
    model = Scripted(size_of)
    with Interview("m", model.open, Journal(tmp_path / "j")) as interview:
        next(describe(subjects, interview, 32))
    before = len(model.questions)
    assert 0 < before < 5
    later = Scripted(size_of)
    found, _ = described(later, subjects, tmp_path / "j")
    assert len(found) == 6
    digests = [question.digest() for question in model.questions + later.questions]
    assert len(digests) == len(set(digests)) == 5


def test_a_wrong_answer_is_asked_again_with_its_fault(subjects, tmp_path):
    def at_second(question):
        return size_of(question) if "refused" in question.text else Answer("A small spot.")

    model = Scripted(at_second)
    found, _ = described(model, subjects, tmp_path / "j")
    assert all(one.attributes for one in found.values())
    assert len(model.questions) == 10
    assert "it holds no JSON object" in model.questions[-1].text
    # Wrong answers are kept as well: none of this is asked a second time.
    again = Scripted(at_second)
    assert described(again, subjects, tmp_path / "j")[0] == found
    assert not again.questions


def test_what_stays_wrong_or_fails_is_told_and_a_failure_asked_in_the_next_run(subjects, tmp_path):
    def reply(question):
        shade = question.image.pixels()[0, 0, 0]
        if shade >= 200:
            return Failure("died")
        return Answer("{}") if shade >= 100 else size_of(question)

    model = Scripted(reply)
    found, _ = described(model, subjects, tmp_path / "j", tries=3)
    assert found["i2"].failure == "died"
    assert "missing keys" in found["i1"].failure
    assert (found["i1"].raw, found["i1"].attributes) == ("{}", None)
    assert found["i0"].attributes
    # i1, and i4 with its copy, were asked three times; i2's failure once.
    assert len(model.questions) == 2 + 1 + 2 * 3
    later = Scripted(size_of)
    described(later, subjects, tmp_path / "j", tries=3)
    assert len(later.questions) == 1


def test_questions_without_images_are_kept_too(tmp_path):
    model = Scripted(lambda question: Answer(question.text.upper()))
    for _ in range(2):
        with Interview("m", model.open, Journal(tmp_path)) as interview:
            asked = interview.ask(Question("", text) for text in ("a", "b", "a"))
            assert sorted((k, one.text) for k, one in asked) == [(0, "A"), (1, "B"), (2, "A")]
    assert [question.text for question in model.questions] == ["b", "a"]


def test_a_sentence_is_asked_for_again_with_its_fault(tmp_path):
    def reply(question):
        if "small" in question.text and "refused" not in question.text:
            return Answer("Write these findings as one sentence.")
        if "large" in question.text:
            return Failure("died")
        return Answer('{"sentence": "A spot."}')

    model = Scripted(reply)
    sizes = [Attributes(size=size) for size in SIZES]
    with Interview("m", model.open, Journal(tmp_path)) as interview:
        found = sorted(word(sizes, interview), key=lambda one: one.index)
    assert [one.value for one in found] == ["A spot.", "A spot.", None]
    assert found[2] == Reading(2, None, "", "died")
    assert "no JSON object" in model.questions[-1].text
    assert len(model.questions) == 4


def test_tokens_a_second_are_those_of_all_requests_together():
    tally = Tally()
    assert tally.tokens_per_second is None
    for _ in range(4):
        tally.add(Answer("a", 10, 30, 2.0))
    tally.wall = 4.0
    assert tally.tokens_per_second == 30
    assert tally.as_json()["tokens_per_second"] == 30 and tally.as_json()["seconds"] == 8
