"""New prompts from a language model that is shown DermPrompts of the class.

The model fills the same schema as a captioner, so that its prompts are made of the same words, and
its response is checked like any other: schema, tokens, near-duplicates.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from didgen.captions.attributes import Attributes
from didgen.captions.llm import ChatRequest, ChatResponse, Result
from didgen.captions.llm_captions import (
    GIVEN,
    InvalidResponse,
    choices,
    parse_attributes,
    response_schema,
)
from didgen.captions.recombine import ClassCaptions, NewPrompt, PromptCounts, accept, recombine
from didgen.data.classes import CLASSES
from didgen.settings.prompts import Settings

LOGGER = logging.getLogger(__name__)
MAX_TOKENS = 512
SYSTEM = (
    "You write descriptions of dermoscopic images for a database, in fixed words. Each describes "
    "one image that could exist."
)
# Sends requests, and gives each one's index with its result, in any order.
Send = Callable[[Iterable[ChatRequest]], Iterator[tuple[int, Result]]]


def few_shot_request(
    captions: ClassCaptions, rng: np.random.Generator, examples: int, temperature: float
) -> tuple[ChatRequest, tuple[str, ...]]:
    """A request for one new description of the class, and the ids of the images of its examples.

    The examples are drawn anew for each request; they and the request's seed, drawn too, make the
    responses differ.
    """
    chosen = rng.permutation(len(captions.ids))[:examples]
    lines = [_as_json(captions.attributes[k]) for k in chosen]
    schema = response_schema()
    noun = CLASSES[captions.label].phrase
    text = "\n".join(
        [
            f"These describe images of {noun}, one JSON object a line:",
            *lines,
            f"Write one more, of another image of {noun}: unlike each of these, yet with "
            "attributes that go together as they do here. Use the same keys in the same order, and "
            "for each one of its values:",
            *(f'"{name}": {choices(node)}' for name, node in schema["properties"].items()),
            "Answer with the JSON object alone.",
        ]
    )
    seed = int(rng.integers(2**31))
    request = ChatRequest(
        SYSTEM, text, schema, max_tokens=MAX_TOKENS, temperature=temperature, seed=seed
    )
    return request, tuple(captions.ids[k] for k in chosen)


def _as_json(attributes: Attributes) -> str:
    return json.dumps(attributes.model_dump(mode="json", exclude=set(GIVEN)))


def write_prompts(
    captions: ClassCaptions, count: int, tokenizer: Any, seed: int, send: Send, settings: Settings
) -> tuple[list[NewPrompt], PromptCounts]:
    """`count` prompts of a class by a language model, in an order that does not depend on its pace.

    Each is asked for up to `settings.tries` times, with new examples and another seed, until a
    response follows the schema and is no near-duplicate; what is then missing is recombined,
    counted as a fallback, and warned of with what was wrong most often. `parent_ids` are the images
    of the examples.
    """
    faults: Counter[str] = Counter()
    seen = captions.seen(tokenizer)
    counts = PromptCounts()
    prompts: list[NewPrompt | None] = [None] * count
    for attempt in range(settings.tries):
        open_slots = [k for k, prompt in enumerate(prompts) if prompt is None]
        if not open_slots:
            break
        rngs = [_rng(seed, captions.label, slot, attempt) for slot in open_slots]
        drawn = [
            few_shot_request(captions, rng, settings.examples, settings.temperature) for rng in rngs
        ]
        results = dict(send([request for request, _ in drawn]))
        # In the order of the prompts, whatever order the responses came in.
        for place, slot in enumerate(open_slots):
            attributes = _parse(results[place], captions.label, counts, faults)
            if attributes is not None:
                prompts[slot] = accept(
                    attributes, drawn[place][1], "language model", tokenizer, settings.max_overlap,
                    seen, counts,
                )  # fmt: skip
    spare: list[NewPrompt] = []
    if missing := prompts.count(None):
        LOGGER.warning(
            "%s: %d of %d prompts are recombined in place of the model's: %d answers were refused, "
            "%d did not come, %d near-duplicates%s",
            captions.label, missing, count, counts.invalid, counts.unanswered,
            counts.near_duplicates, "".join(f"; {why}: {n}" for why, n in faults.most_common(3)),
        )  # fmt: skip
        spare, more = recombine(captions, missing, tokenizer, seed, settings.max_overlap, seen)
        counts.fallbacks += missing
        counts.add(more)
    rest = iter(spare)
    return [prompt if prompt is not None else next(rest) for prompt in prompts], counts


def _rng(seed: int, label: str, slot: int, attempt: int) -> np.random.Generator:
    return np.random.default_rng([seed, slot, attempt, *label.encode()])


def _parse(
    result: Result, label: str, counts: PromptCounts, faults: Counter[str]
) -> Attributes | None:
    if not isinstance(result, ChatResponse):
        counts.unanswered += 1
        faults[result.reason] += 1
        return None
    try:
        return parse_attributes(result.text, label)
    except InvalidResponse as error:
        counts.invalid += 1
        faults[f"its answer: {error}"] += 1
        return None
