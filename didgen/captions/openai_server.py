"""Any server with OpenAI's chat interface: vLLM, llama-server, Ollama, llama-cpp-python and others.

Many requests are in flight at once; what fails for a passing reason is sent again.
"""

import base64
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Literal

import requests
import tenacity

from didgen.captions.captioner import Answer, Failure, ModelError, Question, Result
from didgen.captions.model_files import combined_identity
from didgen.data.web import reason, retry_after, shown

LOGGER = logging.getLogger(__name__)
AnswerFormat = Literal["json_schema", "json_object", "text"]
KEY_VARIABLE = "DIDGEN_API_KEY"
# Too early, too many or too slow, and what a server or a proxy before it says when it is not up.
PASSING = {408, 409, 425, 429, 500, 502, 503, 504}
LONGEST_WAIT = 60.0


class _Passing(Exception):
    """A fault that may be gone at the next try. `pause`: seconds that the server asks to wait."""

    def __init__(self, text: str, pause: float = 0.0, reached: bool = True) -> None:
        super().__init__(text)
        self.pause, self.reached = pause, reached


class ServerModel:
    """A model that a server holds.

    server: base address, ending in /v1 as a rule. model: the name under which it is served.
    api_key_variable: environment variable with the key, if one is needed; the key goes into the
    requests' header and nowhere else. answer_format: how the server is told the schema:
    `json_schema` (OpenAI, vLLM, llama-server, Ollama), `json_object` with a schema
    (llama-cpp-python), or `text`: in the question alone. concurrency: requests in flight.
    retries: further tries after a passing fault. timeout: seconds for an answer.
    """

    def __init__(
        self,
        server: str,
        model: str,
        api_key_variable: str = KEY_VARIABLE,
        answer_format: AnswerFormat = "json_schema",
        concurrency: int = 8,
        retries: int = 5,
        timeout: float = 600.0,
        first_wait: float = 1.0,
    ) -> None:
        if not server.startswith(("http://", "https://")):
            raise ModelError(
                f"server: found {shown(server)!r}, expected an address such as "
                "http://localhost:8000/v1"
            )
        self._url = server.rstrip("/") + "/chat/completions"
        self._model, self._format = model, answer_format
        self._concurrency, self._timeout = concurrency, timeout
        self._key_variable = api_key_variable
        self._sessions = threading.local()
        self._reached = False
        self._closed = threading.Event()
        self._try_again = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Passing),
            stop=tenacity.stop_any(
                tenacity.stop_after_attempt(retries + 1),
                tenacity.stop_when_event_set(self._closed),
            ),
            wait=_Wait(first_wait),
            sleep=tenacity.sleep_using_event(self._closed),
            reraise=True,
        )

    @staticmethod
    def identify(
        server: str, model: str, answer_format: AnswerFormat = "json_schema", **_: Any
    ) -> str:
        """The address and the model's name: what weights a server holds cannot be known."""
        return combined_identity("openai", shown(server).rstrip("/"), model, answer_format)

    def answer(self, questions: Iterable[Question]) -> Iterator[tuple[int, Result]]:
        """Each question's index with its result, in the order in which they arrive.

        Raises: `ModelError` when the server refuses the key or the model, or was never reached.
        """
        numbered = enumerate(questions)
        flying: dict[Future[Result], int] = {}
        pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="captioner")
        try:
            while True:
                while len(flying) < self._concurrency and (item := next(numbered, None)):
                    flying[pool.submit(self._answer, item[1])] = item[0]
                if not flying:
                    return
                done, _ = wait(flying, return_when=FIRST_COMPLETED)
                for future in done:
                    yield flying.pop(future), future.result()
        finally:
            if flying:
                # Given up in the middle: nobody waits for answers, or for the next try.
                self._closed.set()
            pool.shutdown(cancel_futures=True)

    def close(self) -> None:
        """Send nothing more."""
        self._closed.set()

    def _answer(self, question: Question) -> Result:
        try:
            return self._try_again(self._send, question)
        except _Passing as fault:
            if not (fault.reached or self._reached):
                raise ModelError(
                    f"{shown(self._url)}: {fault}; start the server, or correct the address"
                ) from None
            return Failure(f"{shown(self._url)}: {fault}")

    def _send(self, question: Question) -> Result:
        started = time.monotonic()
        try:
            response = self._session().post(
                self._url, json=self._body(question), timeout=(10, self._timeout)
            )
        except requests.RequestException as error:
            raise _Passing(reason(error), reached=False) from None
        self._reached = True
        if response.status_code in PASSING:
            raise _Passing(f"status {response.status_code}", retry_after(response))
        if response.status_code in (401, 403):
            held = "is refused" if os.environ.get(self._key_variable) else "is not set"
            raise ModelError(
                f"{shown(self._url)}: status {response.status_code}; the key in the environment "
                f"variable {self._key_variable} {held}"
            )
        if response.status_code == 404:
            raise ModelError(
                f"{shown(self._url)}: status 404; check the address (it ends in /v1 as a rule) and "
                f"the model's name {self._model!r}: {_told(response)}"
            )
        if response.status_code != 200:
            return Failure(f"status {response.status_code}: {_told(response)}")
        return _read(response, time.monotonic() - started)

    def _session(self) -> requests.Session:
        """One connection a thread, kept open; without the user's .netrc, which may hold others."""
        if not hasattr(self._sessions, "session"):
            session = requests.Session()
            key = os.environ.get(self._key_variable, "")
            session.auth = _Bearer(key)
            self._sessions.session = session
        return self._sessions.session

    def _body(self, question: Question) -> dict[str, Any]:
        content: list[dict[str, Any]] = [{"type": "text", "text": question.text}]
        if question.image is not None:
            data = "data:image/png;base64," + base64.b64encode(question.image.png()).decode()
            content.insert(0, {"type": "image_url", "image_url": {"url": data}})
        body = {
            "model": self._model,
            "messages": [
                {"role": "system", "content": question.system},
                {"role": "user", "content": content if question.image else question.text},
            ],
            "temperature": question.temperature,
            "seed": question.seed,
            "max_tokens": question.max_tokens,
        }
        if question.schema is not None and self._format != "text":
            body["response_format"] = _response_format(question.schema, self._format)
        return body


class _Bearer(requests.auth.AuthBase):
    """Adds the key. As `auth` it also keeps requests from looking for one in .netrc."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request


class _Wait(tenacity.wait.wait_base):
    """Twice as long after each try, with chance so that not all come back at once; or as asked."""

    def __init__(self, first: float) -> None:
        self._growing = tenacity.wait_random_exponential(multiplier=first, max=LONGEST_WAIT)

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        fault = retry_state.outcome.exception() if retry_state.outcome else None
        asked = fault.pause if isinstance(fault, _Passing) else 0.0
        pause = max(min(asked, LONGEST_WAIT), self._growing(retry_state))
        LOGGER.debug("try %d: %s; again in %.1f s", retry_state.attempt_number, fault, pause)
        return pause


def _response_format(schema: Mapping[str, Any], kind: AnswerFormat) -> dict[str, Any]:
    if kind == "json_object":
        return {"type": "json_object", "schema": schema}
    named = {"name": "answer", "strict": True, "schema": schema}
    return {"type": "json_schema", "json_schema": named}


def _told(response: requests.Response) -> str:
    """The server's own words on an error, shortened."""
    try:
        error = response.json()
        text = error.get("error", error.get("detail", error)) if isinstance(error, dict) else error
        text = text.get("message", text) if isinstance(text, dict) else text
    except ValueError:
        text = response.text
    return " ".join(str(text).split())[:300]


def _read(response: requests.Response, seconds: float) -> Result:
    try:
        reply = response.json()
        choice = reply["choices"][0]
        text, ending = choice["message"]["content"], choice.get("finish_reason")
        usage = reply.get("usage") or {}
        asked, given = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
    except (ValueError, LookupError, TypeError, AttributeError):
        return Failure(f"found {response.text[:100]!r}, expected a chat completion")
    if ending == "length":
        return Failure(f"the answer was cut off after {given} tokens")
    if ending != "stop" or not isinstance(text, str):
        return Failure(f"the answer ended with {ending!r}, expected 'stop'")
    return Answer(text, asked, given, seconds)
