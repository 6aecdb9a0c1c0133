import itertools
import json
import multiprocessing
import os
import signal

import numpy as np
import pytest

from didgen.captions.attributes import Attributes
from didgen.captions.client import Journal, JournalError, ModelClient, Usage
from didgen.captions.llm import ChatRequest, ChatResponse, Failure
from didgen.captions.llm_captions import Parsed, describe, response_schema, word
from didgen.captions.measure import ImageRow
from didgen.runtime.files import write_png

SIZES = ("small", "medium", "large")


class Scripted:
    """Completes each request by `reply`; counts and remembers the requests."""

    def __init__(self, reply):
        self.reply, self.requests, self.opened, self.closed = reply, [], 0, 0

    def complete(self, requests):
        # In the reverse order of pairs: results may come in any order.
        numbered = enumerate(requests)
        while pair := list(itertools.islice(numbered, 2)):
            for index, request in reversed(pair):
                self.requests.append(request)
                yield index, self.reply(request)

    def close(self):
        self.closed += 1

    def open(self):
        self.opened += 1
        return self


def nothing(**changes):
    """A valid answer that knows nothing, but for the changes."""
    properties = response_schema()["properties"]
    claims = {k: [] if node.get("type") == "array" else None for k, node in properties.items()}
    return ChatResponse(json.dumps({**claims, "hair": "none", **changes}), 10, 5, 0.5)


def size_of(request):
    """An answer that says of an image what its brightness says."""
    return nothing(size=SIZES[request.image.pixels()[0, 0, 0] // 100])


@pytest.fixture
def images(tmp_path):
    """Six images of three sizes, by their brightness; all differ, but for the last two."""
    made = []
    for k in range(6):
        pixels = np.full((40, 40, 3), 100 * (min(k, 4) % 3) + min(k, 4), dtype=np.uint8)
        write_png(tmp_path / f"{k}.png", pixels)
        made.append(ImageRow(f"i{k}", tmp_path / f"{k}.png", None, "NV" if k else None))
    return made


def described(model, images, folder, tries=2):
    """What was read of each image by its id, and the client's usage."""
    with ModelClient("m", model.open, Journal(folder)) as client:
        results = list(describe(images, client, 32, tries))
    assert sorted(one.index for one in results) == list(range(len(images)))
    return {images[one.index].id: one for one in results}, client.usage


def test_each_image_gets_its_own_claims_and_label(images, tmp_path):
    model = Scripted(size_of)
    results, usage = described(model, images, tmp_path / "j")
    assert [results[f"i{k}"].value.size for k in range(6)] == [
        *SIZES, "small", "medium", "medium",
    ]  # fmt: skip
    assert results["i0"].value.diagnosis is None
    assert results["i1"].value.diagnosis == "NV"
    assert (model.opened, model.closed) == (1, 1)
    # The last two files are equal: asked once.
    assert len(model.requests) == usage.sent == 5
    assert (usage.answer_tokens, usage.prompt_tokens, usage.seconds) == (25, 50, 2.5)


def test_the_second_run_opens_no_model(images, tmp_path):
    first, _ = described(Scripted(size_of), images, tmp_path / "j")
    model = Scripted(size_of)
    second, usage = described(model, images, tmp_path / "j")
    assert second == first
    assert (model.opened, usage.sent, usage.cached) == (0, 0, 6)


def test_another_model_image_or_side_is_asked_anew(images, tmp_path):
    described(Scripted(size_of), images, tmp_path / "j")
    write_png(images[0].image, np.full((40, 40, 3), 200, dtype=np.uint8))
    model = Scripted(size_of)
    results, _ = described(model, images, tmp_path / "j")
    assert len(model.requests) == 1
    assert results["i0"].value.size == "large"
    with ModelClient("other", model.open, Journal(tmp_path / "j")) as client:
        list(describe(images, client, 32, 2))
    assert len(model.requests) == 1 + 5


def test_a_broken_off_run_loses_no_answer_and_asks_none_twice(images, tmp_path):
    model = Scripted(size_of)
    with ModelClient("m", model.open, Journal(tmp_path / "j")) as client:
        next(describe(images, client, 32, 2))
    before = len(model.requests)
    assert 0 < before < 5
    later = Scripted(size_of)
    results, _ = described(later, images, tmp_path / "j")
    assert len(results) == 6
    digests = [request.digest() for request in model.requests + later.requests]
    assert len(digests) == len(set(digests)) == 5


def test_a_wrong_answer_is_asked_again_with_its_fault(images, tmp_path):
    def at_second(request):
        return size_of(request) if "refused" in request.text else ChatResponse("A small spot.")

    model = Scripted(at_second)
    results, _ = described(model, images, tmp_path / "j")
    assert all(one.value for one in results.values())
    assert len(model.requests) == 10
    assert "it holds no JSON object" in model.requests[-1].text
    # Wrong answers are kept as well: none of this is asked a second time.
    again = Scripted(at_second)
    assert described(again, images, tmp_path / "j")[0] == results
    assert not again.requests


def test_what_stays_wrong_or_fails_is_reported_and_a_failure_sent_in_the_next_run(images, tmp_path):
    def reply(request):
        shade = request.image.pixels()[0, 0, 0]
        if shade >= 200:
            return Failure("died")
        return ChatResponse("{}") if shade >= 100 else size_of(request)

    model = Scripted(reply)
    results, _ = described(model, images, tmp_path / "j", tries=3)
    assert results["i2"].failure == "died"
    assert "missing keys" in results["i1"].failure
    assert (results["i1"].raw, results["i1"].value) == ("{}", None)
    assert results["i0"].value
    # i1, and i4 with its copy, were asked three times; i2's failure once.
    assert len(model.requests) == 2 + 1 + 2 * 3
    later = Scripted(size_of)
    described(later, images, tmp_path / "j", tries=3)
    assert len(later.requests) == 1


def test_questions_without_images_are_kept_too(tmp_path):
    model = Scripted(lambda request: ChatResponse(request.text.upper()))
    for _ in range(2):
        with ModelClient("m", model.open, Journal(tmp_path)) as client:
            sent = client.send(ChatRequest("", text) for text in ("a", "b", "a"))
            assert sorted((k, one.text) for k, one in sent) == [(0, "A"), (1, "B"), (2, "A")]
    assert [request.text for request in model.requests] == ["b", "a"]


def test_a_sentence_is_asked_for_again_with_its_fault(tmp_path):
    def reply(request):
        if "small" in request.text and "refused" not in request.text:
            return ChatResponse("Write these findings as one sentence.")
        if "large" in request.text:
            return Failure("died")
        return ChatResponse('{"sentence": "A spot."}')

    model = Scripted(reply)
    sizes = [Attributes(size=size) for size in SIZES]
    with ModelClient("m", model.open, Journal(tmp_path)) as client:
        results = sorted(word(sizes, client, 2), key=lambda one: one.index)
    assert [one.value for one in results] == ["A spot.", "A spot.", None]
    assert results[2] == Parsed(2, None, "", "died")
    assert "no JSON object" in model.requests[-1].text
    assert len(model.requests) == 4


def test_tokens_per_second_are_those_of_all_requests_together():
    usage = Usage()
    assert usage.tokens_per_second is None
    for _ in range(4):
        usage.add(ChatResponse("a", 10, 30, 2.0))
    usage.wall = 4.0
    assert usage.tokens_per_second == 30
    assert usage.as_json()["tokens_per_second"] == 30 and usage.as_json()["seconds"] == 8


def add_forever(folder, ready):
    """Add answers until killed."""
    journal = Journal(folder)
    for k in range(1_000_000):
        journal.add(f"{os.getpid()}-{k}", ChatResponse("x" * 50))
        if k == 3:
            ready.set()


def test_answers_are_found_again(tmp_path):
    answer = ChatResponse('{"a": "ü\\n"}', 5, 7, 0.25)
    Journal(tmp_path).add("key", answer)
    again = Journal(tmp_path)
    assert again.get("key") == answer
    assert again.get("other") is None
    assert len(again) == 1


def test_what_another_process_adds_is_found_without_opening_anew(tmp_path):
    first, second = Journal(tmp_path), Journal(tmp_path)
    first.add("a", ChatResponse("1"))
    assert second.get("a") == ChatResponse("1")
    second.add("b", ChatResponse("2"))
    first.add("c", ChatResponse("3"))
    assert (first.get("b"), second.get("c")) == (ChatResponse("2"), ChatResponse("3"))
    assert (len(first), len(second), len(Journal(tmp_path))) == (3, 3, 3)
    assert len(first.path.read_text().splitlines()) == 3
    # Killed in the middle of a line while this one goes on.
    with second.path.open("a") as stream:
        stream.write('{"key": "d", "te')
    first.add("e", ChatResponse("5"))
    assert second.get("e") == ChatResponse("5")
    assert len(Journal(tmp_path)) == 4
    with first.path.open("a") as stream:
        stream.write("[]\n")
    with pytest.raises(JournalError, match=r"1 of 5 lines are damaged \(the first is line 5\)"):
        first.get("d")


def test_a_torn_last_line_is_cut_off_and_the_rest_kept(tmp_path, caplog):
    journal = Journal(tmp_path)
    journal.add("a", ChatResponse("1"))
    journal.add("b", ChatResponse("2"))
    whole = journal.path.read_bytes()
    for length in range(whole.index(b"\n") + 2, len(whole)):
        journal.path.write_bytes(whole[:length])
        again = Journal(tmp_path)
        assert (again.get("a"), again.get("b")) == (ChatResponse("1"), None)
        again.add("b", ChatResponse("3"))
        assert Journal(tmp_path).get("b") == ChatResponse("3")
    assert "unfinished line" in caplog.text


def test_answers_that_no_file_could_hold_are_kept_and_found(tmp_path):
    journal = Journal(tmp_path)
    journal.add("a", ChatResponse("half \ud800 a pair"))
    # As an earlier version left them, with counts as a server gave them.
    with journal.path.open("a") as stream:
        stream.write('{"key": "b", "text": "\\udfff", "prompt_tokens": null, "seconds": NaN}\n')
        stream.write('{"key": "c", "text": "%s", "answer_tokens": "many"}\n' % ("[" * 100_000))
    again = Journal(tmp_path)
    assert (again.get("a").text, again.get("b").text) == ("half ? a pair", "?")
    assert again.get("c").text == "[" * 100_000


def test_damage_in_the_middle_is_an_error(tmp_path):
    journal = Journal(tmp_path)
    for key in "abc":
        journal.add(key, ChatResponse(key))
    lines = journal.path.read_text().splitlines()
    journal.path.write_text("\n".join([lines[0], lines[1][:-5], lines[2]]) + "\n")
    with pytest.raises(JournalError, match=r"1 of 3 lines are damaged \(the first is line 2\)"):
        Journal(tmp_path)
    journal.path.write_text(lines[0] + '\n{"key": "a"}\n[]\n{"key": ' + "[" * 100_000 + "\n")
    with pytest.raises(JournalError, match="3 of 4 lines"):
        Journal(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["mine", '{"q": 1}\n{"q": 2}', '{"q": 1}\n', '{"key": "mine", "text": "a"}', "\n\n", "{\"q",
     '{"key": "%s"}' % ("0" * 64), "x" * 100],
)  # fmt: skip
def test_a_file_that_is_no_journal_is_refused_and_left_alone(tmp_path, text):
    (tmp_path / "answers.jsonl").write_text(text)
    with pytest.raises(JournalError, match="a file of another kind, expected none or an earlier"):
        Journal(tmp_path)
    assert (tmp_path / "answers.jsonl").read_text() == text


def test_a_torn_first_line_is_cut_off(tmp_path):
    journal = Journal(tmp_path)
    journal.add("0123456789abcdef" * 4, ChatResponse("1"))
    whole = journal.path.read_bytes()
    for length in range(1, len(whole)):
        journal.path.write_bytes(whole[:length])
        assert len(Journal(tmp_path)) == 0 and journal.path.read_bytes() == b""


def test_a_cache_that_is_a_file_is_named(tmp_path):
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(ValueError, match="found a file or a broken link at .*notes, expected a f"):
        Journal(tmp_path / "notes")


@pytest.mark.parametrize("name", ["answers.jsonl", "answers.jsonl.lock"])
def test_a_journal_follows_no_link_out_of_its_folder(tmp_path, name):
    kept = Journal(tmp_path / "kept")
    kept.add("a", ChatResponse("1"))
    with kept.path.open("a") as stream:
        stream.write('{"key": "b", "te')
    before = kept.path.read_bytes()
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / name).symlink_to(kept.path)
    with pytest.raises(JournalError, match=f"{name}: found a link, folder or special file"):
        Journal(tmp_path / "cache")
    assert kept.path.read_bytes() == before


def test_a_full_disk_leaves_whole_lines(tmp_path, monkeypatch):
    journal = Journal(tmp_path)
    journal.add("a", ChatResponse("1"))

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        journal.add("b", ChatResponse("2"))
    monkeypatch.undo()
    assert journal.get("b") is None
    assert len(journal.path.read_text().splitlines()) == 1
    journal.add("c", ChatResponse("3"))
    assert len(Journal(tmp_path)) == 2


def test_killed_writers_side_by_side_leave_a_sound_journal(tmp_path):
    context = multiprocessing.get_context("fork")
    ready = [context.Event() for _ in range(2)]
    writers = [context.Process(target=add_forever, args=(tmp_path, event)) for event in ready]
    for writer in writers:
        writer.start()
    for event in ready:
        assert event.wait(60)
    for writer in writers:
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
    journal = Journal(tmp_path)
    assert len(journal) >= 8
    for line in journal.path.read_text().splitlines():
        assert set(json.loads(line)) == {
            "key", "text", "prompt_tokens", "answer_tokens", "seconds",
        }  # fmt: skip
