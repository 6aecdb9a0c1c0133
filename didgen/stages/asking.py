"""Asking a language model about many images: which one, with what settings, kept where."""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from didgen.stages.measuring import Job

if TYPE_CHECKING:
    from didgen.captions.attributes import Attributes
    from didgen.captions.captioner import LanguageModel
    from didgen.captions.condense import AskAgain, Condensed
    from didgen.captions.interview import Description, Interview
    from didgen.settings.caption import Settings

LOGGER = logging.getLogger(__name__)
# Failures that statistics.json names; all are in the log.
NAMED_FAILURES = 20


class TooManyFailed(ValueError):
    """More images failed than the settings allow."""


def model_settings(settings: "Settings", text: bool = False) -> dict[str, Any]:
    """The keyword arguments of the captioner's class. text: of the model that writes sentences."""
    model = settings.text_model if text and settings.text_model else settings.model
    named = {"model": model} if model else {}
    if settings.captioner == "openai":
        return named | {
            "server": settings.server,
            "api_key_variable": settings.api_key_variable,
            "answer_format": settings.answer_format,
            "concurrency": settings.concurrency,
            "timeout": settings.timeout,
        }
    if settings.captioner == "transformers":
        return named | {
            "revision": settings.model_revision,
            "batch_size": settings.batch_size,
            "precision": settings.precision,
            "device_map": settings.device_map,
        }
    vision = {"mmproj": settings.mmproj} if settings.mmproj else {}
    return (
        named
        | ({"mmproj": None} if text and settings.text_model else vision)
        | {
            "chat_format": settings.chat_format,
            "context": settings.context,
            "gpu_layers": settings.gpu_layers,
            "threads": settings.threads,
        }
    )


@contextmanager
def interview(settings: "Settings", folder: Path, text: bool = False) -> Iterator["Interview"]:
    """Questions to the settings' model; answers are kept in `folder`. Raises: `ModelError`."""
    from didgen.captions.captioner import CAPTIONERS, load_captioner
    from didgen.captions.interview import Interview
    from didgen.captions.journal import Journal
    from didgen.captions.supervised import SupervisedModel
    from didgen.runtime.devices import lease_gpus, visible_gpus

    kind, options = load_captioner(settings.captioner), model_settings(settings, text)
    identity = kind.identify(**options)

    def open_model() -> "LanguageModel":
        LOGGER.info("opening %s %s", settings.captioner, options.get("model", "(the default)"))
        # A server's native code crashes elsewhere; its requests need no process of their own.
        if settings.captioner == "openai":
            return kind(**options)
        # The model's process inherits what is taken here, however often it is started.
        if visible_gpus():
            lease_gpus(settings.gpus)
        model = SupervisedModel(
            CAPTIONERS[settings.captioner], options, options.get("batch_size", 1),
            settings.retries, settings.timeout,
        )  # fmt: skip
        # Now, so that the time of loading does not count as that of answers.
        model.start()
        return model

    with Interview(identity, open_model, Journal(folder)) as asked:
        yield asked
        told = asked.tally
        LOGGER.info(
            "%d answers of the model, %d from %s%s",
            told.asked, told.found, folder,
            f"; {told.tokens_per_second:.1f} tokens/s, {told.asked / told.wall:.2f} answers/s"
            if told.tokens_per_second is not None else "",
        )  # fmt: skip


def describe_all(
    settings: "Settings", jobs: list[Job], folder: Path
) -> tuple[dict[str, "Description"], dict[str, Any]]:
    """What the model says of each image, by id, and figures for statistics.json.

    The model sees the images alone. Raises: `ModelError`; `TooManyFailed` as soon as more than
    `settings.max_failed` of the images have.
    """
    from didgen.captions.interview import Subject, describe
    from didgen.runtime.progress import track

    subjects = [Subject(job.id, job.image, job.label) for job in jobs]
    found: dict[str, Description] = {}
    failed: dict[str, str] = {}
    with interview(settings, folder) as asked:
        told = describe(subjects, asked, settings.image_side, settings.retries + 1)
        for one in track(told, total=len(subjects), label="described"):
            found[one.id] = one
            if one.attributes is None:
                LOGGER.warning("%s: no description: %s", one.id, one.failure)
                failed[one.id] = one.failure
                if len(failed) > settings.max_failed * len(subjects):
                    raise TooManyFailed(_too_many(failed, len(found), len(subjects), settings))
    named = dict(sorted(failed.items())[:NAMED_FAILURES])
    figures = {"captioner": settings.captioner, "failed": len(failed), "failures": named}
    return found, figures | asked.tally.as_json()


def _too_many(failed: dict[str, str], seen: int, total: int, settings: "Settings") -> str:
    name, why = next(iter(failed.items()))
    return (
        f"{len(failed)} of the first {seen} of {total} images have no description (the first is "
        f"{name}: {why}); max_failed allows {settings.max_failed:g} of all images. Find the cause "
        "and run the same command again: answers are kept; or raise max_failed, and failed images "
        "get measured attributes"
    )


def word_all(
    settings: "Settings", attributes: list["Attributes"], tokenizer: Any, folder: Path
) -> tuple[list["Condensed"], dict[str, Any]]:
    """One sentence each in the model's words, and figures; one too long is asked for again.

    Where the model gives none, it is made from the vocabulary: the log and the figures count these.
    Raises: `ModelError`; `ReservedWord` with `reserved_words: refuse`.
    """
    from didgen.captions.condense import condense
    from didgen.captions.interview import word
    from didgen.runtime.progress import track

    texts: dict[int, str] = {}
    failures: Counter[str] = Counter()
    with interview(settings, folder, text=True) as asked:
        told = word(attributes, asked, settings.retries + 1)
        for one in track(told, total=len(attributes), label="sentences"):
            if one.value is None:
                failures[one.failure] += 1
            else:
                texts[one.index] = one.value
        condensed = []
        for index, known in enumerate(attributes):
            source, again = (
                (texts[index], _shorter(asked, known)) if index in texts else (known, None)
            )
            one = condense(source, tokenizer, again, settings.retries, settings.reserved_words)
            if not one.caption:
                failures["its sentence has not one word that fits"] += 1
                one = replace(condense(known, tokenizer), asked_again=one.asked_again)
            condensed.append(one)
        reasons = dict(failures.most_common(NAMED_FAILURES))
        if failures:
            LOGGER.warning(
                "%d of %d sentences are made from the vocabulary: %s", failures.total(),
                len(attributes), "; ".join(f"{why} ({n})" for why, n in reasons.items()),
            )  # fmt: skip
    figures = {"from_vocabulary": failures.total(), "failures": reasons}
    return condensed, {"sentences": figures | asked.tally.as_json()}


def _shorter(asked: "Interview", attributes: "Attributes") -> "AskAgain":
    """Asks for another sentence of the same attributes; None where the model gives none."""
    from didgen.captions.captioner import Answer
    from didgen.captions.questions import (
        ClaimError,
        read_sentence,
        sentence_question,
        shorter_question,
    )

    def again(text: str, fault: str) -> str | None:
        question = shorter_question(sentence_question(attributes), text, fault)
        ((_, result),) = asked.ask([question])
        try:
            return read_sentence(result.text) if isinstance(result, Answer) else None
        except ClaimError:
            return None

    return again
