"""Progress of transfers in bytes: bars on a terminal, a line every few seconds in a log."""

import logging
import sys
import threading
import time

LOGGER = logging.getLogger("didgen.progress")


class TransferProgress:
    """Shows several transfers at once; may be called from several threads.

    On a terminal every file has a bar; elsewhere one log line is written every `every` seconds.
    """

    def __init__(self, label: str, files: int, total: int | None, every: float = 10.0) -> None:
        """`files`: how many there are; `total`: the bytes of all, None when not known."""
        self._label, self._files, self._total, self._every = label, files, total, every
        self._terminal = sys.stderr.isatty()
        self._bars: dict = {}
        self._reached: dict[str, int] = {}
        self._received = self._finished = 0
        self._started = self._last = time.monotonic()
        self._lock = threading.Lock()

    def at(self, name: str, done: int, total: int | None) -> None:
        """Say that `done` of `total` bytes of a file are there; fewer than before: it restarted."""
        with self._lock:
            # Bytes of an earlier run are there at once; they do not belong to this run's rate.
            gained = done - self._reached.get(name, done)
            self._reached[name] = done
            self._received += max(gained, 0)
            if self._terminal:
                self._bar(name, done, total)
            elif time.monotonic() - self._last >= self._every:
                self._last = time.monotonic()
                LOGGER.info(self.line())

    def finish(self, name: str) -> None:
        """Say that a file is complete."""
        with self._lock:
            self._finished += 1
            if name in self._bars:
                self._bars.pop(name).close()

    def close(self) -> None:
        """Remove what is left on the terminal."""
        with self._lock:
            for bar in self._bars.values():
                bar.close()
            self._bars.clear()

    def line(self) -> str:
        """One line: files done, bytes there of all, rate (of this run) and time left."""
        there = sum(self._reached.values())
        rate = self._received / max(time.monotonic() - self._started, 1e-9)
        text = f"{self._label}: {self._finished} of {self._files} files, {readable(there)}"
        text += f" of about {readable(self._total)}" if self._total else ""
        text += f", {readable(rate)}/s"
        if self._total and rate > 0 and self._total > there:
            left = (self._total - there) / rate
            text += f", {left:.0f} s left" if left < 120 else f", {left / 60:.0f} min left"
        return text

    def _bar(self, name: str, done: int, total: int | None) -> None:
        from tqdm import tqdm

        if name not in self._bars:
            self._bars[name] = tqdm(
                total=total, initial=done, desc=name, unit="B", unit_scale=True, leave=False
            )
        bar = self._bars[name]
        bar.total = total
        bar.update(done - bar.n)


def readable(size: float) -> str:
    """A number of bytes with three digits and a decimal unit: 1.23 GB."""
    for unit in ("B", "kB", "MB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB" if size < 1000 else f"{size:.0f} GB"
