import json
import multiprocessing
import os
import signal

import pytest

from didgen.captions.captioner import Answer
from didgen.captions.journal import Journal, JournalError


def add_forever(folder, ready):
    """Add answers until killed."""
    journal = Journal(folder)
    for k in range(1_000_000):
        journal.add(f"{os.getpid()}-{k}", Answer("x" * 50))
        if k == 3:
            ready.set()


def test_answers_are_found_again(tmp_path):
    answer = Answer('{"a": "ü\\n"}', 5, 7, 0.25)
    Journal(tmp_path).add("key", answer)
    again = Journal(tmp_path)
    assert again.get("key") == answer
    assert again.get("other") is None
    assert len(again) == 1


def test_what_another_process_adds_is_found_without_opening_anew(tmp_path):
    first, second = Journal(tmp_path), Journal(tmp_path)
    first.add("a", Answer("1"))
    assert second.get("a") == Answer("1")
    second.add("b", Answer("2"))
    first.add("c", Answer("3"))
    assert (first.get("b"), second.get("c")) == (Answer("2"), Answer("3"))
    assert (len(first), len(second), len(Journal(tmp_path))) == (3, 3, 3)
    assert len(first.path.read_text().splitlines()) == 3
    # Killed in the middle of a line while this one goes on.
    with second.path.open("a") as stream:
        stream.write('{"key": "d", "te')
    first.add("e", Answer("5"))
    assert second.get("e") == Answer("5")
    assert len(Journal(tmp_path)) == 4
    with first.path.open("a") as stream:
        stream.write("[]\n")
    with pytest.raises(JournalError, match=r"1 of 5 lines are damaged \(the first is line 5\)"):
        first.get("d")


def test_a_torn_last_line_is_cut_off_and_the_rest_kept(tmp_path, caplog):
    journal = Journal(tmp_path)
    journal.add("a", Answer("1"))
    journal.add("b", Answer("2"))
    whole = journal.path.read_bytes()
    for length in range(whole.index(b"\n") + 2, len(whole)):
        journal.path.write_bytes(whole[:length])
        again = Journal(tmp_path)
        assert (again.get("a"), again.get("b")) == (Answer("1"), None)
        again.add("b", Answer("3"))
        assert Journal(tmp_path).get("b") == Answer("3")
    assert "unfinished line" in caplog.text


def test_answers_that_no_file_could_hold_are_kept_and_found(tmp_path):
    journal = Journal(tmp_path)
    journal.add("a", Answer("half \ud800 a pair"))
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
        journal.add(key, Answer(key))
    lines = journal.path.read_text().splitlines()
    journal.path.write_text("\n".join([lines[0], lines[1][:-5], lines[2]]) + "\n")
    with pytest.raises(JournalError, match=r"1 of 3 lines are damaged \(the first is line 2\)"):
        Journal(tmp_path)
    journal.path.write_text('{"key": "a"}\n[]\n' + '{"key": ' + "[" * 100_000 + "\n")
    with pytest.raises(JournalError, match="3 of 3 lines"):
        Journal(tmp_path)


def test_a_full_disk_leaves_whole_lines(tmp_path, monkeypatch):
    journal = Journal(tmp_path)
    journal.add("a", Answer("1"))

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        journal.add("b", Answer("2"))
    monkeypatch.undo()
    assert journal.get("b") is None
    assert len(journal.path.read_text().splitlines()) == 1
    journal.add("c", Answer("3"))
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
