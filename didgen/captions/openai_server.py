"""Any server with OpenAI's chat interface: vLLM, llama-server, Ollama, llama-cpp-python and others.

Many requests are in flight at once; what fails for a passing reason is sent again. What a server
sends is not trusted: time and size are bounded, and its words are cleaned before they are logged.
"""

import base64
import contextlib
import json
import logging
import os
import queue
import reprlib
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urljoin

import tenacity
import urllib3
from requests import PreparedRequest, RequestException, Response, Session

from didgen.captions.llm import (
    ChatRequest,
    ChatResponse,
    Failure,
    ModelError,
    Result,
    one_line,
)
from didgen.captions.model_files import combined_identity
from didgen.data.web import reason, retry_after, shown
from didgen.settings.addresses import check_server
from didgen.settings.caption import AnswerFormat

LOGGER = logging.getLogger(__name__)
# Of a header that it cannot parse it logs the server's own bytes and a traceback.
logging.getLogger("urllib3.connection").setLevel(logging.ERROR)
# Too early, too many or too slow, and what a server or a proxy before it says when it is not up.
PASSING = {408, 409, 425, 429, 500, 502, 503, 504}
LONGEST_WAIT = 60.0
# Bytes of a reply: a hundred times what `max_tokens` allows.
LARGEST_REPLY = 2**20
# Seconds after its deadline that a request has to end by itself.
GRACE = 1.0


class _TransientError(Exception):
    """A fault that may be gone at the next try. `pause`: seconds that the server asks to wait;
    `reached`: whether the server answered; `late`: whether the request's time is over."""

    def __init__(
        self, text: str, pause: float = 0.0, reached: bool = True, late: bool = False
    ) -> None:
        super().__init__(text)
        self.pause, self.reached, self.late = pause, reached, late


class ServerModel:
    """A model that a server holds.

    server: base address, ending in /v1 as a rule. model: the name under which it is served.
    api_key_variable: environment variable with the key, if one is needed; the key goes into the
    requests' header and nowhere else. answer_format: how the server is told the schema:
    `json_schema` (OpenAI, vLLM, llama-server, Ollama), `json_object` with a schema
    (llama-cpp-python), or `text`: in the request alone. concurrency: requests in flight.
    retries: further tries after a passing fault. timeout: seconds for an answer, all tries and
    the waits between them included.
    Raises: `ModelError`.
    """

    def __init__(
        self,
        server: str,
        model: str,
        api_key_variable: str,
        answer_format: AnswerFormat,
        concurrency: int,
        timeout: float,
        retries: int = 5,
        first_wait: float = 1.0,
    ) -> None:
        try:
            check_server(server)
        except ValueError as error:
            raise ModelError(f"server: {error}") from None
        self._url = server.rstrip("/") + "/chat/completions"
        self._model, self._format = model, answer_format
        self._concurrency, self._timeout = concurrency, timeout
        self._key_variable, self._key = api_key_variable, _key_in(api_key_variable)
        self._idle: list[Session] = []
        self._reached = False
        self._late = 0
        self._closed = threading.Event()
        self._try_again = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_TransientError),
            stop=tenacity.stop_any(
                tenacity.stop_after_attempt(retries + 1),
                tenacity.stop_before_delay(timeout),
                tenacity.stop_when_event_set(self._closed),
            ),
            wait=_Wait(first_wait),
            sleep=tenacity.sleep_using_event(self._closed),
            reraise=True,
        )

    @staticmethod
    def identify(server: str, model: str, answer_format: AnswerFormat, **_: Any) -> str:
        """The address and the model's name: what weights a server holds cannot be known."""
        return combined_identity("openai", shown(server).rstrip("/"), model, answer_format)

    def complete(self, requests: Iterable[ChatRequest]) -> Iterator[tuple[int, Result]]:
        """Each request's index with its result, in the order in which they arrive.

        Raises: `ModelError` when the server refuses the key or the model, was never reached, or
        has let more requests in a row run out of time than are in flight at once.
        """
        numbered = enumerate(requests)
        results: queue.SimpleQueue[tuple[int, Result | BaseException]] = queue.SimpleQueue()
        deadlines: dict[int, float] = {}
        try:
            while True:
                while len(deadlines) < self._concurrency and (item := next(numbered, None)):
                    deadlines[item[0]] = time.monotonic() + self._timeout
                    # Not a pool, whose threads Python waits for at its end: no timeout of a socket
                    # ends a reply whose header comes byte by byte, or an endless look-up of a name.
                    threading.Thread(
                        target=self._work, args=(*item, deadlines[item[0]], results), daemon=True
                    ).start()
                if not deadlines:
                    return
                index, result = self._next(results, deadlines)
                # A result may still come from a request that was given up.
                if deadlines.pop(index, None) is not None:
                    yield index, self._settled(result)
        finally:
            if deadlines:
                # Given up in the middle: nobody waits for answers, or for the next try.
                self._closed.set()

    def close(self) -> None:
        """Send nothing more."""
        self._closed.set()

    def _work(
        self, index: int, request: ChatRequest, deadline: float, results: queue.SimpleQueue
    ) -> None:
        """Put the request's result, or what it raised, into the queue."""
        try:
            results.put((index, self._try_again(self._send, request, deadline)))
        except BaseException as error:
            results.put((index, error))

    def _next(
        self, results: queue.SimpleQueue, deadlines: Mapping[int, float]
    ) -> tuple[int, Result | BaseException]:
        """The next result, or the fault of the first request that should have one by now."""
        first = min(deadlines, key=deadlines.__getitem__)
        try:
            return results.get(timeout=max(0.0, deadlines[first] + GRACE - time.monotonic()))
        except queue.Empty:
            return first, self._too_late()

    def _too_late(self) -> _TransientError:
        return _TransientError(f"no whole answer in {self._timeout:g} s", reached=False, late=True)

    def _settled(self, result: Result | BaseException) -> Result:
        """A result as it is given out. Raises: `ModelError`, or what the request has raised."""
        if not isinstance(result, _TransientError):
            if isinstance(result, BaseException):
                raise result
            self._late = 0
            return result
        self._late = self._late + 1 if result.late else 0
        if not (result.reached or self._reached):
            raise ModelError(
                f"{shown(self._url)}: {result}; start the server, or correct the address"
            ) from None
        if self._late > self._concurrency:
            raise ModelError(
                f"{shown(self._url)}: {result}, {self._late} times in a row; look after the "
                "server, or raise timeout or lower concurrency, and run the same command again: "
                "answers are kept"
            ) from None
        return Failure(f"{shown(self._url)}: {result}")

    def _send(self, request: ChatRequest, deadline: float) -> Result:
        body = self._body(request)
        started = time.monotonic()
        try:
            status, reply = self._reply(body, deadline)
        except (RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            if time.monotonic() >= deadline:
                raise self._too_late() from None
            raise _TransientError(reason(error), reached=False) from None
        if status in (401, 403):
            held = "is refused" if self._key else "is not set"
            raise ModelError(
                f"{shown(self._url)}: status {status}; the key in the environment variable "
                f"{self._key_variable} {held}"
            )
        if reply is None:
            return Failure(f"found a reply of more than {LARGEST_REPLY} bytes")
        if status == 404:
            raise ModelError(
                f"{shown(self._url)}: status 404; check the address (it ends in /v1 as a rule) and "
                f"the model's name {self._model!r}: {self._words(reply)}"
            )
        if status != 200:
            return Failure(f"status {status}: {self._words(reply)}")
        return self._read(reply, request, time.monotonic() - started)

    def _reply(self, body: dict[str, Any], deadline: float) -> tuple[int, bytes | None]:
        """Status and body of a reply; None for one that is too large.

        Raises: `_TransientError`; `ModelError` for a redirection; as requests and urllib3.
        """
        left = deadline - time.monotonic()
        if left <= 0:
            raise self._too_late()
        # Each thread has a session of its own while it needs one; the connections stay open.
        try:
            session = self._idle.pop()
        except IndexError:
            session = _Session(self._key)
        try:
            with session.post(
                self._url, json=body, timeout=(min(10.0, left), left), stream=True
            ) as response:
                self._reached = True
                status = response.status_code
                if status in PASSING:
                    raise _TransientError(f"status {status}", retry_after(response))
                if response.is_redirect:
                    raise ModelError(
                        f"{shown(self._url)}: status {status}, a redirection to "
                        f"{self._target(response)}; images go to no address but that in `server`, "
                        "so name there the one that they are to go to"
                    )
                data = bytearray()
                while chunk := response.raw.read1(2**16, decode_content=True):
                    data += chunk
                    if len(data) > LARGEST_REPLY:
                        return status, None
                    if time.monotonic() >= deadline:
                        raise self._too_late()
            return status, bytes(data)
        finally:
            self._idle.append(session)

    def _target(self, response: Response) -> str:
        """Where a redirection leads."""
        try:
            return self._clean(shown(urljoin(self._url, response.headers["Location"])))
        except ValueError:
            return "what is no address"

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        content: list[dict[str, Any]] = [{"type": "text", "text": request.text}]
        if request.image is not None:
            data = "data:image/png;base64," + base64.b64encode(request.image.png()).decode()
            content.insert(0, {"type": "image_url", "image_url": {"url": data}})
        body = {
            "model": self._model,
            "messages": [
                {"role": "system", "content": request.system},
                {"role": "user", "content": content if request.image else request.text},
            ],
            "temperature": request.temperature,
            "seed": request.seed,
            "max_tokens": request.max_tokens,
        }
        if request.schema is not None and self._format != "text":
            body["response_format"] = _response_format(request.schema, self._format)
        return body

    def _read(self, reply: bytes, request: ChatRequest, seconds: float) -> Result:
        """The answer in a completion."""
        try:
            completion = json.loads(reply)
            choice = completion["choices"][0]
            text, ending = choice["message"]["content"], choice.get("finish_reason")
            usage = completion.get("usage")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return Failure(f"expected a chat completion, found: {self._words(reply)}")
        sent, given = _tokens(usage, "prompt_tokens"), _tokens(usage, "completion_tokens")
        if ending == "length":
            return Failure(f"the answer was cut off after {given or request.max_tokens} tokens")
        if ending != "stop":
            ended = self._clean(reprlib.repr(ending))
            return Failure(f"the answer ended with {ended}, expected 'stop'")
        if not isinstance(text, str):
            return Failure(f"found {self._clean(reprlib.repr(text))} as answer, expected a text")
        return ChatResponse(text, sent, given, seconds)

    def _words(self, reply: bytes) -> str:
        """The server's own words on an error."""
        with contextlib.suppress(ValueError, RecursionError):
            error = json.loads(reply)
            if isinstance(error, dict):
                error = error.get("error", error.get("detail", error))
            if isinstance(error, dict):
                error = error.get("message", error)
            if isinstance(error, str):
                return self._clean(error)
        return self._clean(reply.decode(errors="replace"))

    def _clean(self, text: str) -> str:
        """A server's text as it may be logged, without the key, which some repeat."""
        return one_line(text.replace(self._key, "[key]") if self._key else text)


def _key_in(variable: str) -> str:
    """The key in an environment variable; "" for none. Raises: `ModelError`, without the key."""
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise ModelError(
            f"the key in the environment variable {variable} holds spaces, control characters or "
            "letters beyond ASCII, which no key has; set it anew"
        )
    return key


def _tokens(usage: Any, name: str) -> int:
    """A count of tokens as the server gives it; 0 where it gives none, or no sensible one."""
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if type(count) is int and 0 <= count < 2**31 else 0


class _Session(Session):
    """Sends to the one address alone, with the key, never with one of the user's .netrc."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self._key = key
        self.auth = self._with_key

    def _with_key(self, request: PreparedRequest) -> PreparedRequest:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def get_redirect_target(self, resp: Response) -> None:
        """Follow nothing: the next server would get the images as well."""


class _Wait(tenacity.wait.wait_base):
    """Twice as long after each try, with chance so that not all come back at once; or as asked."""

    def __init__(self, first: float) -> None:
        self._growing = tenacity.wait_random_exponential(multiplier=first, max=LONGEST_WAIT)

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        fault = retry_state.outcome.exception() if retry_state.outcome else None
        wished = fault.pause if isinstance(fault, _TransientError) else 0.0
        pause = max(min(wished, LONGEST_WAIT), self._growing(retry_state))
        LOGGER.debug("try %d: %s; again in %.1f s", retry_state.attempt_number, fault, pause)
        return pause


def _response_format(schema: Mapping[str, Any], kind: AnswerFormat) -> dict[str, Any]:
    if kind == "json_object":
        return {"type": "json_object", "schema": schema}
    named = {"name": "answer", "strict": True, "schema": schema}
    return {"type": "json_schema", "json_schema": named}
