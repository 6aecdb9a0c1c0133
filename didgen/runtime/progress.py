"""Progress that suits its reader: a bar on a terminal, a line every few seconds in a log."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self, TypeVar

T = TypeVar("T")
# Seconds between the lines of a log, at least, and the share of the time so far that must have
# passed: hours make few hundred lines.
EVERY, SHARE = 10.0, 0.02
LOGGER = logging.getLogger("didgen.progress")


class Progress:
    """How much of some work is done, its rate and the time left; to be used as a context.

    On a terminal it is a bar; elsewhere one log line every `EVERY` seconds, less often as time goes
    on, and one at the end. The rate is that since the line before: a continued run finds its first
    items done, and these say nothing of the time that the others take.
    """

    def __init__(self, label: str, total: int | None = None, done: int = 0) -> None:
        self.label, self.total, self.done = label, total, done
        self._first = self._before = done
        self._started = self._last = time.monotonic()
        self._ended = False
        self._bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=done, desc=label, leave=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, details: Callable[[], str] | None = None) -> None:
        """One more is done; `details` are words for the end of a line."""
        self.reach(self.done + 1, details)

    def reach(self, done: int, details: Callable[[], str] | None = None) -> None:
        """So many are done: fewer than before where something starts anew."""
        before, self.done = self.done, done
        if done == before:
            return
        if self._bar is not None:
            if details is not None:
                self._bar.set_postfix_str(details(), refresh=False)
            self._bar.update(done - before)
            return
        now = time.monotonic()
        self._ended = self.done == self.total
        if self._ended or now - self._last >= max(EVERY, SHARE * (now - self._started)):
            self._tell(now, details)

    def end(self) -> None:
        """The last line, where it is not written yet: the total was not known, or not reached."""
        if self._bar is None and not self._ended:
            self._ended = True
            self._tell(time.monotonic())

    def _tell(self, now: float, details: Callable[[], str] | None = None) -> None:
        since, before = (self._started, self._first) if self._ended else (self._last, self._before)
        text = line(self.label, self.done, self.total, now - since, self.done - before)
        LOGGER.info(text if details is None else f"{text}: {details()}")
        self._last, self._before = now, self.done


def track(items: Iterable[T], total: int | None = None, label: str = "") -> Iterator[T]:
    """Yield the items while showing how many are done, the rate and the time left."""
    if total is None:
        total = len(items) if hasattr(items, "__len__") else None  # type: ignore[arg-type]
    with Progress(label, total) as progress:
        for item in items:
            yield item
            progress.advance()
        progress.end()


def line(
    label: str, done: int, total: int | None, seconds: float, lately: int | None = None
) -> str:
    """One line of progress: label, done of total, rate and time left.

    lately: how many were done in these seconds; None: all of them.
    """
    rate = (done if lately is None else lately) / seconds if seconds > 0 else 0.0
    text = f"{label}: {done}" + (f"/{total}" if total is not None else "")
    if 0 < rate < 0.1:
        text += f", {1 / rate:.1f} s each"
    else:
        text += f", {rate:.2f}/s" if rate < 10 else f", {rate:.0f}/s"
    if total is not None and 0 < done < total and rate > 0:
        left = (total - done) / rate
        text += f", {left:.0f} s left" if left < 120 else f", {left / 60:.0f} min left"
    elif done == total:
        text += f", done in {seconds:.1f} s"
    return text
