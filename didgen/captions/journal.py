"""Answers on disk, found again by what was asked: a journal that survives a kill at any moment."""

import errno
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock

from didgen.captions.captioner import Answer

LOGGER = logging.getLogger(__name__)
NAME = "answers.jsonl"


class JournalError(ValueError):
    """A journal with damage in its middle, which no interrupted run can cause."""


class Journal:
    """One JSON line an answer, on disk before `add` returns; several processes may share a folder.

    A line that an interrupted run left unfinished is cut off when the journal is opened.
    Raises: `JournalError`.
    """

    def __init__(self, folder: Path | str) -> None:
        """Open or begin the journal of a folder."""
        self.path = Path(folder) / NAME
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(f"{self.path}.lock")
        self._answers: dict[str, Answer] = {}
        # How much of the file is known: bytes, and lines.
        self._bytes = self._lines = 0
        self._read_on()

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str) -> Answer | None:
        """The answer under a key, if one was ever given, be it by another process just now."""
        if key not in self._answers and self._longer():
            self._read_on()
        return self._answers.get(key)

    def add(self, key: str, answer: Answer) -> None:
        """Keep an answer. Raises: `OSError` when the disk is full; nothing is then kept."""
        line = json.dumps({"key": key, **asdict(answer)}).encode() + b"\n"
        with self._lock:
            # Also cuts off what another process, killed meanwhile, left unfinished.
            self._read_on()
            # Unbuffered: a buffer would try once more on closing, after the line was taken back.
            with self.path.open("ab", buffering=0) as stream:
                before = stream.tell()
                try:
                    if stream.write(line) < len(line):
                        raise OSError(errno.ENOSPC, f"no space left while writing {self.path}")
                    os.fsync(stream.fileno())
                except OSError:
                    stream.truncate(before)
                    raise
            self._bytes, self._lines = before + len(line), self._lines + 1
        self._answers[key] = answer

    def _longer(self) -> bool:
        return self.path.exists() and self.path.stat().st_size > self._bytes

    def _read_on(self) -> None:
        """Read what was added since the last time. Raises: `JournalError`."""
        with self._lock:
            if not self._longer():
                return
            with self.path.open("rb+") as stream:
                stream.seek(self._bytes)
                whole, newline, torn = stream.read().rpartition(b"\n")
                if torn:
                    LOGGER.warning(
                        "%s: cut off an unfinished line of %d bytes", self.path, len(torn)
                    )
                    stream.truncate(self._bytes + len(whole) + len(newline))
            lines = whole.splitlines()
            self._answers |= self._parsed(lines)
            self._bytes += len(whole) + len(newline)
            self._lines += len(lines)

    def _parsed(self, lines: list[bytes]) -> Iterator[tuple[str, Answer]]:
        bad, number = [], 0
        for number, line in enumerate(lines, start=self._lines + 1):
            try:
                entry = json.loads(line)
                yield entry.pop("key"), Answer(**entry)
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                bad.append(number)
        if bad:
            raise JournalError(
                f"{self.path}: {len(bad)} of {number} lines are damaged (the first is line "
                f"{bad[0]}); delete them, and these questions will be asked again"
            )
