"""New prompts from a language model that is shown DermPrompts of the class.

The model fills the same schema as a captioner, so that its prompts are made of the same words, and
what it answers is checked like any other: schema, tokens, near-duplicates.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from didgen.captions.attributes import Attributes
from didgen.captions.captioner import Answer, Question, Result
from didgen.captions.novelty import MAX_OVERLAP, SeenCaptions
from didgen.captions.questions import GIVEN, ClaimError, choices, claim_schema, read_claims
from didgen.captions.recombine import ClassCaptions, NewPrompt, PromptCounts, accept, recombine
from didgen.data.classes import CLASSES

LOGGER = logging.getLogger(__name__)
SYSTEM = (
    "You write descriptions of dermoscopic images for a database, in fixed words. Each describes "
    "one image that could exist."
)
# Asks questions, and gives each one's index with its result, in any order.
Ask = Callable[[Iterable[Question]], Iterator[tuple[int, Result]]]


def few_shot_question(
    captions: ClassCaptions,
    rng: np.random.Generator,
    examples: int = 6,
    temperature: float = 0.8,
    max_tokens: int = 512,
) -> tuple[Question, tuple[str, ...]]:
    """A question for one new description of the class, and the ids of the images shown as examples.

    The examples are drawn anew for each question; they and the question's seed, drawn too, make the
    answers differ.
    """
    shown = rng.permutation(len(captions.ids))[:examples]
    lines = [_as_json(captions.attributes[k]) for k in shown]
    schema = claim_schema()
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
    question = Question(
        system=SYSTEM,
        text=text,
        schema=schema,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
    )
    return question, tuple(captions.ids[k] for k in shown)


def _as_json(attributes: Attributes) -> str:
    return json.dumps(attributes.model_dump(mode="json", exclude=set(GIVEN)))


def write_prompts(
    captions: ClassCaptions,
    count: int,
    tokenizer: Any,
    seed: int,
    ask: Ask,
    examples: int = 6,
    temperature: float = 0.8,
    tries: int = 3,
    max_overlap: float = MAX_OVERLAP,
) -> tuple[list[NewPrompt], PromptCounts]:
    """`count` prompts of a class by a language model, in an order that does not depend on its pace.

    Each is asked for up to `tries` times, with new examples and another seed, until an answer
    follows the schema and is no near-duplicate; what is then missing is recombined, counted as a
    fallback, and warned of with what was wrong most often. `parent_ids` are the images shown as
    examples.
    """
    faults: Counter[str] = Counter()
    seen = captions.seen(tokenizer)
    counts = PromptCounts()
    found: list[NewPrompt | None] = [None] * count
    for attempt in range(tries):
        open_slots = [k for k, prompt in enumerate(found) if prompt is None]
        if not open_slots:
            break
        rngs = [_rng(seed, captions.label, slot, attempt) for slot in open_slots]
        placed = [few_shot_question(captions, rng, examples, temperature) for rng in rngs]
        answers = dict(ask([question for question, _ in placed]))
        # In the order of the prompts, whatever order the answers came in.
        for place, slot in enumerate(open_slots):
            attributes = _read(answers[place], captions.label, counts, faults)
            if attributes is not None:
                found[slot] = accept(
                    attributes, placed[place][1], "language model", tokenizer, max_overlap, seen,
                    counts,
                )  # fmt: skip
    if missing := found.count(None):
        LOGGER.warning(
            "%s: %d of %d prompts are recombined in place of the model's: %d answers were refused, "
            "%d did not come, %d near-duplicates%s",
            captions.label, missing, count, counts.invalid, counts.unanswered,
            counts.near_duplicates, "".join(f"; {why}: {n}" for why, n in faults.most_common(3)),
        )  # fmt: skip
    return _filled(found, captions, tokenizer, seed, max_overlap, seen, counts), counts


def _rng(seed: int, label: str, slot: int, attempt: int) -> np.random.Generator:
    return np.random.default_rng([seed, slot, attempt, *label.encode()])


def _read(
    result: Result, label: str, counts: PromptCounts, faults: Counter[str]
) -> Attributes | None:
    if not isinstance(result, Answer):
        counts.unanswered += 1
        faults[result.reason] += 1
        return None
    try:
        return read_claims(result.text, label)
    except ClaimError as error:
        counts.invalid += 1
        faults[f"its answer: {error}"] += 1
        return None


def _filled(
    found: list[NewPrompt | None],
    captions: ClassCaptions,
    tokenizer: Any,
    seed: int,
    max_overlap: float,
    seen: SeenCaptions,
    counts: PromptCounts,
) -> list[NewPrompt]:
    """The prompts, recombined ones in the gaps; adds to the counts."""
    missing = sum(prompt is None for prompt in found)
    spare, more = recombine(captions, missing, tokenizer, seed, max_overlap, seen)
    counts.fallbacks += missing
    counts.add(more)
    rest = iter(spare)
    return [prompt if prompt is not None else next(rest) for prompt in found]
