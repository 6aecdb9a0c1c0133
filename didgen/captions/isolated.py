"""A language model in a process of its own: native code may crash there without ending the run."""

import contextlib
import faulthandler
import itertools
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from multiprocessing import connection
from pathlib import Path
from typing import Any

from didgen.captions.llm import (
    ChatRequest,
    Failure,
    ModelError,
    Result,
    load_attribute,
    one_line,
)
from didgen.runtime.children import end_with_parent

LOGGER = logging.getLogger(__name__)
# A machine may need minutes to read a model of many gigabytes from a slow disk.
START_TIMEOUT = 1800.0
LAST_LINES = 3


class WorkerDied(Exception):
    """The process ended, or was ended because it gave no answer in time."""


class IsolatedModel:
    """A model that is loaded and runs in another process, which is started again when it dies.

    target: "module:attribute" of the model's class; settings: its keyword arguments.
    batch_size: requests given to it at once. A batch in which it dies is sent again one by one.
    retries: how often a request that ended the process is sent once more before it has failed.
    timeout: seconds for each request of a batch, after which the process counts as hung and is
    killed.
    """

    def __init__(
        self,
        target: str,
        settings: Mapping[str, Any],
        batch_size: int,
        retries: int,
        timeout: float,
    ) -> None:
        """Nothing is loaded before `start` or the first request."""
        self._target, self._settings = target, dict(settings)
        self._batch_size, self._retries, self._timeout = batch_size, retries, timeout
        self._process: Any = None
        self._pipe: Any = None
        self._folder = tempfile.TemporaryDirectory(prefix="didgen-model-")
        self._log = Path(self._folder.name) / "stderr"
        self.crashes = 0

    def __enter__(self) -> "IsolatedModel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def complete(self, requests: Iterable[ChatRequest]) -> Iterator[tuple[int, Result]]:
        """Each request's index with its result, in order.

        Raises: `ModelError` when the model cannot be loaded.
        """
        numbered = enumerate(requests)
        while batch := list(itertools.islice(numbered, self._batch_size)):
            indices, requested = zip(*batch, strict=True)
            yield from zip(indices, self._complete_batch(list(requested)), strict=True)

    def _complete_batch(self, batch: list[ChatRequest]) -> list[Result]:
        try:
            return self._send(batch)
        except WorkerDied as death:
            if len(batch) == 1:
                return [self._complete_alone(batch[0], death)]
            LOGGER.warning("%s; its %d requests are sent one by one", death, len(batch))
        return [self._complete_alone(request, None) for request in batch]

    def _complete_alone(self, request: ChatRequest, death: WorkerDied | None) -> Result:
        """Send one request as often as allowed. `death`: of the first time, if it was."""
        for _ in range(self._retries + (death is None)):
            try:
                return self._send([request])[0]
            except WorkerDied as again:
                death = again
        LOGGER.warning("given up after %d tries: %s", self._retries + 1, death)
        return Failure(str(death))

    def _send(self, batch: list[ChatRequest]) -> list[Result]:
        self.start()
        try:
            self._pipe.send(batch)
        except OSError:
            raise self._buried("ended before a request reached it") from None
        results = self._receive(self._timeout * len(batch))
        if isinstance(results, str):
            raise ModelError(results)
        return results

    def _receive(self, timeout: float) -> Any:
        """What the process sends next. Raises: `WorkerDied`."""
        ready = connection.wait([self._pipe, self._process.sentinel], timeout)
        if not ready:
            self._process.kill()
            raise self._buried(f"gave no answer in {timeout:.0f} s")
        if self._pipe in ready:
            # It may have died in the middle of sending.
            with contextlib.suppress(EOFError, OSError):
                return self._pipe.recv()
        raise self._buried("died")

    def start(self) -> None:
        """Start the process and load the model, unless it is there. Raises: `ModelError`."""
        if self._process is not None:
            return
        # Spawned: a forked child would share the parent's threads' locks and its CUDA context.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve,
            args=(theirs, self._target, self._settings, str(self._log)),
            daemon=True,
        )
        self._process.start()
        theirs.close()
        started = time.monotonic()
        try:
            refusal = self._receive(START_TIMEOUT)
        except WorkerDied as death:
            raise ModelError(f"while loading the model, {death}") from None
        if refusal is not None:
            self.close_process()
            raise ModelError(refusal)
        LOGGER.info("the model is loaded (%.1f s)", time.monotonic() - started)

    def _buried(self, how: str) -> WorkerDied:
        """Clear away the dead process, and say how it ended and what it wrote last."""
        self._process.join(10)
        code = self._process.exitcode
        if code is not None and code < 0 and how == "died":
            how = f"was ended by {signal.Signals(-code).name}"
        elif how == "died":
            how = f"ended with exit code {code}"
        self.crashes += 1
        self.close_process()
        said = self._last_words()
        return WorkerDied(f"the model's process {how}" + (f" ({said})" if said else ""))

    def _last_words(self) -> str:
        if not self._log.exists():
            return ""
        text = self._log.read_bytes()[-4000:].decode(errors="replace")
        # What faulthandler adds is for `DIDGEN_DEBUG`; the model's own words come before.
        text = text.partition("Fatal Python error")[0]
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return one_line(" | ".join(lines[-LAST_LINES:]), 400)

    def close_process(self) -> None:
        """End the process if there is one; the next request starts another."""
        if self._process is None:
            return
        self._pipe.close()
        self._process.join(0.2)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(10)
        self._process.close()
        self._process = self._pipe = None

    def close(self) -> None:
        """End the process and remove its log."""
        self.close_process()
        self._folder.cleanup()


def _serve(pipe: Any, target: str, settings: dict[str, Any], log: str) -> None:
    """The process: load the model, then complete batch after batch until the pipe is closed."""
    _write_to(log)
    end_with_parent()
    # Ctrl+C reaches the whole group; the parent decides what becomes of this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        model = load_attribute(target)(**settings)
    except (ValueError, OSError, ImportError) as error:
        pipe.send(f"{error}")
        return
    pipe.send(None)
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            batch = pipe.recv()
            try:
                pipe.send(_completed(model, batch))
            except ModelError as error:
                pipe.send(str(error))


def _completed(model: Any, batch: list[ChatRequest]) -> list[Result]:
    """The batch's results; when it cannot be completed as a whole, request by request."""
    results: list[Result] = [Failure("the model gave no answer")] * len(batch)
    try:
        for index, result in model.complete(batch):
            results[index] = result
    except ModelError:
        raise
    # Whatever a library raises concerns these requests; the next ones may well succeed.
    except Exception as error:
        if len(batch) > 1:
            return [_completed(model, [request])[0] for request in batch]
        return [Failure(f"{type(error).__name__}: {error}"[:500])]
    return results


def _write_to(log: str) -> None:
    """Send what this process and its native code print into a file."""
    stream = open(log, "wb", buffering=0)  # noqa: SIM115
    os.dup2(stream.fileno(), sys.stdout.fileno() if sys.stdout else 1)
    os.dup2(stream.fileno(), 2)
    faulthandler.enable(stream)
