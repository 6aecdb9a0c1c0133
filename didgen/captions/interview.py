"""Ask a language model about many images: each once, ever; what it gets wrong is asked again."""

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from didgen.captions.attributes import Attributes
from didgen.captions.captioner import Answer, Failure, LanguageModel, Question, Result
from didgen.captions.image_file import ImageFile
from didgen.captions.journal import Journal
from didgen.captions.questions import (
    ClaimError,
    ask_again,
    describe_question,
    read_claims,
    read_sentence,
    sentence_question,
)

T = TypeVar("T")
LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subject:
    """An image to be described. The label becomes the diagnosis; no model sees it."""

    id: str
    image: Path
    label: str | None = None


@dataclass(frozen=True)
class Description:
    """What a model said of an image: its claims, or why there are none; `raw`: its last answer."""

    id: str
    attributes: Attributes | None
    raw: str = ""
    failure: str = ""


@dataclass(frozen=True)
class Reading(Generic[T]):
    """What was read of the answer to a question, by its index; None with the failure's reason."""

    index: int
    value: T | None
    raw: str = ""
    failure: str = ""


@dataclass
class Tally:
    """What the questions cost: those asked now, those found in the journal, tokens, seconds.

    `deaths` counts how often the model's process died. `seconds` is the model's time, summed up;
    `wall` the time in which it was asked, without that of loading it.
    """

    asked: int = 0
    found: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    seconds: float = 0.0
    wall: float = 0.0
    deaths: int = 0

    def add(self, answer: Answer) -> None:
        """Count an answer that was given now."""
        self.asked += 1
        self.prompt_tokens += answer.prompt_tokens
        self.answer_tokens += answer.answer_tokens
        self.seconds += answer.seconds

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens of answers a second, of all requests together; None where nothing was asked."""
        return self.answer_tokens / self.wall if self.asked and self.wall else None

    def as_json(self) -> dict[str, Any]:
        """The counts and the rate, for a JSON file."""
        return asdict(self) | {"tokens_per_second": self.tokens_per_second}


class Interview:
    """Answers of one model, from the journal where they were given before.

    identity: names the model, see `LanguageModel`. open_model: loads it, called only when there is
    a question that was never answered. Failures are not kept: a later run asks again.
    """

    def __init__(
        self, identity: str, open_model: Callable[[], LanguageModel], journal: Journal
    ) -> None:
        self._identity, self._open, self._journal = identity, open_model, journal
        self._model: LanguageModel | None = None
        self.tally = Tally()

    def __enter__(self) -> "Interview":
        return self

    def __exit__(self, *_: object) -> None:
        if self._model is not None:
            self.tally.deaths = getattr(self._model, "deaths", 0)
            self._model.close()

    def ask(self, questions: Iterable[Question]) -> Iterator[tuple[int, Result]]:
        """Each question's index with its result, in any order; each answer is on disk before.

        An equal question among them is asked once. Raises: `ModelError`.
        """
        ahead: list[tuple[int, Result]] = []
        waiting: dict[str, list[int]] = {}

        def unanswered() -> Iterator[Question]:
            for index, question in enumerate(questions):
                key = self._key(question)
                if (answer := self._journal.get(key)) is not None:
                    self.tally.found += 1
                    ahead.append((index, answer))
                elif key in waiting:
                    waiting[key].append(index)
                else:
                    waiting[key] = [index]
                    keys.append(key)
                    yield question

        keys: list[str] = []
        for position, result in self._results(unanswered()):
            if isinstance(result, Answer):
                self._journal.add(keys[position], result)
                self.tally.add(result)
            yield from self._drained(ahead)
            yield from ((index, result) for index in waiting.pop(keys[position]))
        yield from self._drained(ahead)

    def _results(self, questions: Iterator[Question]) -> Iterator[tuple[int, Result]]:
        """Of the model, which is opened at the first question."""
        first = next(questions, None)
        if first is None:
            return
        if self._model is None:
            self._model = self._open()
        started = time.monotonic()
        try:
            yield from self._model.answer(_chain(first, questions))
        finally:
            self.tally.wall += time.monotonic() - started

    def _key(self, question: Question) -> str:
        return hashlib.sha256(f"{self._identity} {question.digest()}".encode()).hexdigest()

    @staticmethod
    def _drained(ahead: list[tuple[int, Result]]) -> Iterator[tuple[int, Result]]:
        while ahead:
            yield ahead.pop()


def _chain(first: Question, rest: Iterator[Question]) -> Iterator[Question]:
    yield first
    yield from rest


def describe(
    subjects: Sequence[Subject], interview: Interview, image_side: int, tries: int = 2
) -> Iterator[Description]:
    """One description an image, in any order.

    image_side: longer side in pixels to which images are shrunk. tries: how often an image is
    asked about until an answer follows the schema. Raises: `ModelError`.
    """

    def question(k: int) -> Question:
        return describe_question(ImageFile.of(subjects[k].image, image_side))

    def read(k: int, text: str) -> Attributes:
        return read_claims(text, subjects[k].label)

    for one in _readings(interview, len(subjects), question, read, tries):
        yield Description(subjects[one.index].id, one.value, one.raw, one.failure)


def word(
    attributes: Sequence[Attributes], interview: Interview, tries: int = 2
) -> Iterator[Reading[str]]:
    """One sentence each in the model's words, in any order.

    tries: how often it is asked for until an answer is one. Raises: `ModelError`.
    """
    return _readings(
        interview,
        len(attributes),
        lambda k: sentence_question(attributes[k]),
        lambda _, text: read_sentence(text),
        tries,
    )


def _readings(
    interview: Interview,
    count: int,
    question: Callable[[int], Question],
    read: Callable[[int, str], T],
    tries: int,
) -> Iterator[Reading[T]]:
    """One reading a question; an answer that `read` refuses is asked for again with its fault."""
    faults: dict[int, tuple[str, ...]] = dict.fromkeys(range(count), ())
    for attempt in range(1, tries + 1):
        asked = list(faults)
        refused: dict[int, tuple[str, ...]] = {}
        for index, result in interview.ask(_with_faults(question(k), faults[k]) for k in asked):
            k = asked[index]
            if isinstance(result, Failure):
                yield Reading(k, None, "", result.reason)
                continue
            try:
                value = read(k, result.text)
            except ClaimError as error:
                if attempt < tries:
                    refused[k] = (*faults[k], str(error))
                else:
                    yield Reading(k, None, result.text, f"its answer: {error}")
            else:
                yield Reading(k, value, result.text)
        faults = refused
        if not faults:
            return
        LOGGER.info("%d answers did not follow the schema; asking again", len(faults))


def _with_faults(question: Question, faults: Sequence[str]) -> Question:
    for fault in faults:
        question = ask_again(question, fault)
    return question
