"""Requests to a language model, each sent only once: responses are kept in a journal on disk."""

import errno
import hashlib
import itertools
import json
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from didgen.captions.isolated import IsolatedModel
from didgen.captions.llm import (
    CAPTIONERS,
    ChatRequest,
    ChatResponse,
    LanguageModel,
    Result,
    load_captioner,
)
from didgen.runtime.devices import lease_gpus, visible_gpus
from didgen.runtime.outputs import check_above
from didgen.settings.caption import Settings

LOGGER = logging.getLogger(__name__)
JOURNAL = "answers.jsonl"
_LINE = re.compile(rb'\{"key": "[0-9a-f]{64}", "text": ')


@dataclass
class Usage:
    """What the requests cost: those sent, those found in the journal, tokens, seconds.

    `crashes` counts how often the model's process died. `seconds` is the model's time, summed up;
    `wall` the time in which requests were under way, without that of loading the model.
    """

    sent: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    seconds: float = 0.0
    wall: float = 0.0
    crashes: int = 0

    def add(self, response: ChatResponse) -> None:
        """Count a new response."""
        self.sent += 1
        self.prompt_tokens += response.prompt_tokens
        self.answer_tokens += response.answer_tokens
        self.seconds += response.seconds

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens of responses per second, of all requests together; None where none was sent."""
        return self.answer_tokens / self.wall if self.sent and self.wall else None

    def as_json(self) -> dict[str, Any]:
        """The counts and the rate, for a JSON file."""
        return asdict(self) | {"tokens_per_second": self.tokens_per_second}


class JournalError(ValueError):
    """A file that is no journal, or a journal with damage that no interrupted run can cause."""


class Journal:
    """One JSON line per response, on disk before `add` returns; processes may share a folder.

    A line that an interrupted run left unfinished is cut off when the journal is opened. A file
    of the same name that somebody else wrote is left as it is. Raises: `JournalError`.
    """

    def __init__(self, folder: Path | str) -> None:
        """Open or begin the journal of a folder."""
        self.path = Path(folder) / JOURNAL
        check_above(self.path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = Path(f"{self.path}.lock")
        for path in (self.path, lock):
            # Through a link, a file elsewhere would be cut and continued.
            if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
                raise JournalError(
                    f"{path}: found a link, folder or special file, expected a plain file or none; "
                    "to keep answers elsewhere, name that folder in caption.cache"
                )
        self._lock = FileLock(lock)
        self._responses: dict[str, ChatResponse] = {}
        # How much of the file is known: bytes, and lines.
        self._bytes = self._lines = 0
        self._read_on()

    def __len__(self) -> int:
        return len(self._responses)

    def get(self, key: str) -> ChatResponse | None:
        """The response under a key, if there is one, also of another process just now."""
        if key not in self._responses and self._longer():
            self._read_on()
        return self._responses.get(key)

    def add(self, key: str, response: ChatResponse) -> None:
        """Keep a response. Raises: `OSError` when the disk is full; nothing is then kept."""
        line = json.dumps({"key": key, **asdict(response)}).encode() + b"\n"
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
        self._responses[key] = response

    def _longer(self) -> bool:
        return self.path.exists() and self.path.stat().st_size > self._bytes

    def _read_on(self) -> None:
        """Read what was added since the last time. Raises: `JournalError`."""
        with self._lock:
            if not self._longer():
                return
            with self.path.open("rb") as stream:
                stream.seek(self._bytes)
                whole, newline, torn = stream.read().rpartition(b"\n")
            lines = whole.splitlines()
            responses = dict(self._parsed(lines))
            if torn:
                if not lines and not self._lines and not _may_begin(torn):
                    raise JournalError(self._foreign())
                LOGGER.warning("%s: cut off an unfinished line of %d bytes", self.path, len(torn))
                os.truncate(self.path, self._bytes + len(whole) + len(newline))
            self._responses |= responses
            self._bytes += len(whole) + len(newline)
            self._lines += len(lines)

    def _parsed(self, lines: list[bytes]) -> Iterator[tuple[str, ChatResponse]]:
        bad, number = [], 0
        for number, line in enumerate(lines, start=self._lines + 1):
            try:
                entry = json.loads(line)
                yield entry.pop("key"), ChatResponse(**entry)
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                bad.append(number)
        if len(bad) == number > 0:
            raise JournalError(self._foreign())
        if bad:
            raise JournalError(
                f"{self.path}: {len(bad)} of {number} lines are damaged (the first is line "
                f"{bad[0]}); delete them, and these questions will be asked again"
            )

    def _foreign(self) -> str:
        return (
            f"{self.path}: found a file of another kind, expected none or an earlier journal of "
            "answers; nothing was changed. Move it away, or name another folder in caption.cache"
        )


def _may_begin(torn: bytes) -> bool:
    """Whether bytes without a line's end may be the beginning of a response's line."""
    example = b'{"key": "%s", "text": ' % (b"0" * 64)
    return _LINE.match(torn + example[len(torn) :]) is not None


class ModelClient:
    """Responses of one model, from the journal where they came before.

    identity: names the model, see `LanguageModel`. open_model: loads it, called only when there is
    a request without a response. Failures are not kept: a later run sends these requests again.
    """

    def __init__(
        self, identity: str, open_model: Callable[[], LanguageModel], journal: Journal
    ) -> None:
        self._identity, self._open, self._journal = identity, open_model, journal
        self._model: LanguageModel | None = None
        self.usage = Usage()

    def __enter__(self) -> "ModelClient":
        return self

    def __exit__(self, *_: object) -> None:
        if self._model is not None:
            self.usage.crashes = getattr(self._model, "crashes", 0)
            self._model.close()

    def send(self, requests: Iterable[ChatRequest]) -> Iterator[tuple[int, Result]]:
        """Each request's index with its result, in any order; each response is on disk before.

        An equal request among them is sent once. Raises: `ModelError`.
        """
        cached: list[tuple[int, ChatResponse]] = []
        waiting: dict[str, list[int]] = {}
        keys: list[str] = []

        def new() -> Iterator[ChatRequest]:
            for index, request in enumerate(requests):
                key = hashlib.sha256(f"{self._identity} {request.digest()}".encode()).hexdigest()
                if (response := self._journal.get(key)) is not None:
                    self.usage.cached += 1
                    cached.append((index, response))
                elif key in waiting:
                    waiting[key].append(index)
                else:
                    waiting[key] = [index]
                    keys.append(key)
                    yield request

        for position, result in self._completed(new()):
            if isinstance(result, ChatResponse):
                self._journal.add(keys[position], result)
                self.usage.add(result)
            yield from _drained(cached)
            yield from ((index, result) for index in waiting.pop(keys[position]))
        yield from _drained(cached)

    def _completed(self, requests: Iterator[ChatRequest]) -> Iterator[tuple[int, Result]]:
        """Results of the model, which is opened at the first request."""
        first = next(requests, None)
        if first is None:
            return
        if self._model is None:
            self._model = self._open()
        started = time.monotonic()
        try:
            yield from self._model.complete(itertools.chain([first], requests))
        finally:
            self.usage.wall += time.monotonic() - started


def _drained(items: list[tuple[int, ChatResponse]]) -> Iterator[tuple[int, ChatResponse]]:
    while items:
        yield items.pop()


@contextmanager
def open_client(settings: Settings, folder: Path, text: bool = False) -> Iterator[ModelClient]:
    """A client of the settings' model. Raises: `ModelError`.

    Responses are kept in `settings.cache` or else in `folder`. text: the model that writes
    sentences.
    """
    folder = Path(settings.cache).expanduser() if settings.cache else folder
    kind, options = load_captioner(settings.captioner), model_options(settings, text)
    identity = kind.identify(**options)

    def open_model() -> LanguageModel:
        LOGGER.info("opening %s %s", settings.captioner, options["model"] or "(the default)")
        # A server's native code crashes elsewhere; its requests need no process of their own.
        if settings.captioner == "openai":
            return kind(**options)
        # The model's process inherits what is taken here, however often it is started.
        if visible_gpus():
            lease_gpus(settings.gpus)
        model = IsolatedModel(
            CAPTIONERS[settings.captioner], options, options.get("batch_size", 1),
            settings.retries, settings.timeout,
        )  # fmt: skip
        # Now, so that the time of loading does not count as that of responses.
        model.start()
        return model

    with ModelClient(identity, open_model, Journal(folder)) as client:
        yield client
        usage = client.usage
        LOGGER.info(
            "%d answers of the model, %d from %s%s",
            usage.sent, usage.cached, folder,
            f"; {usage.tokens_per_second:.1f} tokens/s, {usage.sent / usage.wall:.2f} answers/s"
            if usage.tokens_per_second is not None else "",
        )  # fmt: skip


def model_options(settings: Settings, text: bool = False) -> dict[str, Any]:
    """The keyword arguments of the captioner's class. text: of the model that writes sentences."""
    own = text and settings.text_model is not None
    names = {
        "openai": ("server", "api_key_variable", "answer_format", "concurrency", "timeout"),
        "transformers": ("model_revision", "batch_size", "precision", "device_map"),
        "llama_cpp": ("mmproj", "chat_format", "context", "gpu_layers", "threads"),
    }[settings.captioner]
    options = {name: getattr(settings, name) for name in names}
    if settings.captioner == "llama_cpp":
        # A text model has no projector; where no model is named, the default's own is used.
        options["mmproj"] = None if own else settings.mmproj
    return {"model": settings.text_model if own else settings.model, **options}
