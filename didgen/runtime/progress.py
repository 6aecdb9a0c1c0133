"""Progress that suits its reader: a bar on a terminal, a line every few seconds in a log."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
# A log gets a line whenever this share of the time so far has passed: hours make few hundred lines.
SHARE = 0.02
LOGGER = logging.getLogger("didgen.progress")


def track(
    items: Iterable[T], total: int | None = None, label: str = "", every: float = 10.0
) -> Iterator[T]:
    """Yield the items while showing how many are done, the rate and the time left.

    On a terminal it is a bar; elsewhere one log line every `every` seconds, less often as time goes
    on, and one at the end. The rate is that since the line before: a continued run finds its first
    items done, and these say nothing of the time that the others take.
    """
    if total is None:
        total = len(items) if hasattr(items, "__len__") else None  # type: ignore[arg-type]
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, total=total, desc=label, leave=False)
        return
    started = last = time.monotonic()
    done = before = 0
    for item in items:
        yield item
        done += 1
        now = time.monotonic()
        if now - last >= max(every, SHARE * (now - started)):
            LOGGER.info(line(label, done, total, now - last, done - before))
            last, before = now, done
    LOGGER.info(line(label, done, total, time.monotonic() - started))


def line(
    label: str, done: int, total: int | None, seconds: float, lately: int | None = None
) -> str:
    """One line of progress: label, done of total, rate (per second) and time left.

    lately: how many were done in these seconds; None: all of them.
    """
    rate = (done if lately is None else lately) / seconds if seconds > 0 else 0.0
    text = f"{label}: {done}" + (f"/{total}" if total is not None else "")
    text += f", {rate:.2f}/s" if rate < 10 else f", {rate:.0f}/s"
    if total is not None and 0 < done < total and rate > 0:
        left = (total - done) / rate
        text += f", {left:.0f} s left" if left < 120 else f", {left / 60:.0f} min left"
    elif done == total:
        text += f", done in {seconds:.1f} s"
    return text
