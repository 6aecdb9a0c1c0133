"""Progress in logs: enough lines to follow a job, too few to drown in."""

import logging

import pytest

from didgen.runtime import progress


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The time that `track` sees, in seconds; no terminal."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: False, raising=False)
    return now


@pytest.mark.parametrize(("hours", "least", "most"), [(1 / 60, 6, 8), (1, 50, 160), (24, 150, 330)])
def test_a_day_makes_a_few_hundred_lines(clock, caplog, hours, least, most) -> None:
    caplog.set_level(logging.INFO, logger="didgen.progress")
    for _ in progress.track(range(int(hours * 3600)), label="steps"):
        clock[0] += 1
    assert least <= len(caplog.records) <= most
    assert "done in" in caplog.messages[-1]


def test_a_line_tells_rate_and_time_left() -> None:
    assert progress.line("pairs", 30, 90, 60.0) == "pairs: 30/90, 0.50/s, 2 min left"
    assert progress.line("pairs", 90, 90, 60.0) == "pairs: 90/90, 1.50/s, done in 60.0 s"
    assert progress.line("files", 30, None, 2.0) == "files: 30, 15/s"
    assert progress.line("steps", 30, 90, 600.0) == "steps: 30/90, 20.0 s each, 20 min left"


def test_what_was_found_done_does_not_count_for_the_time_left(clock, caplog) -> None:
    caplog.set_level(logging.INFO, logger="didgen.progress")
    for k in progress.track(range(1000), label="images"):
        clock[0] += 0 if k < 900 else 5
    assert caplog.messages[0].startswith("images: 902/1000")
    assert caplog.messages[1] == "images: 904/1000, 0.20/s, 8 min left"


def test_a_continued_work_counts_its_own_items_and_tells_details(clock, caplog) -> None:
    """Of 100 steps 40 were done before; 10 more take 20 seconds: 2 s each, 100 s for the rest."""
    caplog.set_level(logging.INFO, logger="didgen.progress")
    with progress.Progress("finetune", 100, done=40) as shown:
        for _ in range(10):
            clock[0] += 2
            shown.advance(lambda: "loss 0.5000")
    assert caplog.messages[-1] == "finetune: 50/100, 0.50/s, 100 s left: loss 0.5000"


@pytest.mark.parametrize("items", [[], iter([1, 2]), [1, 2]])
def test_there_is_one_last_line(clock, caplog, items) -> None:
    caplog.set_level(logging.INFO, logger="didgen.progress")
    list(progress.track(items, label="images"))
    assert len(caplog.messages) == 1


def test_what_starts_anew_counts_from_there(clock, caplog) -> None:
    """Half of a download is there, its server gives another version, and 25 MB take 10 seconds."""
    caplog.set_level(logging.INFO, logger="didgen.progress")
    with progress.Progress("downloading", 100, done=50) as shown:
        clock[0] += 10
        shown.reach(0)
        clock[0] += 10
        shown.reach(25)
        shown.reach(25)
    assert caplog.messages[-1] == "downloading: 25/100, 2.50/s, 30 s left"
    assert len(caplog.messages) == 2
