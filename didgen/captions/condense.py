"""Condensing: one sentence that fits the backbone's tokenizer together with the prefix.

A text from a model that is too long is asked for again, then trimmed at a clause boundary, and both
are counted: nothing is ever cut by the tokenizer itself.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from didgen.backbone.prompts import (
    PREFIX,
    RESERVED,
    TAGS,
    build_prompt,
    check_caption,
    count_tokens,
)
from didgen.captions.attributes import Attributes
from didgen.captions.sentence import write_sentence
from didgen.settings.caption import ReservedWords

# A text and what is wrong with it -> a better text, or None where there is none.
Rewrite = Callable[[str, str], str | None]

# What stands in for a reserved word, the longer phrases first. Plural endings stay as they are.
REPLACEMENTS: tuple[tuple[str, str], ...] = (
    (r"\bskin[\s-]+lesion", "spot"),
    (r"\bskin[\s-]+(tone|colou?r)", "tone"),
    (r"\bperi-?lesional skin", "surroundings"),
    (r"\bsurrounding skin", "surroundings"),
    (r"\bperi-?lesional", "surrounding"),
    (r"\bintra-?lesional", "inner"),
    (r"lesion", "spot"),
    (r"skin", "tone"),
)
# Begins where a run of them begins: from each of a million dots the search would be quadratic.
_SENTENCE_END = re.compile(r"(?<![.!?])[.!?]+(?:\s+|$)")
# A chat model's own marks, e.g. <|eot_id|>, and any other markup: the tokenizer would read them.
_MARKUP = re.compile(r"<[^<>\s]*>")


@dataclass(frozen=True)
class Condensed:
    """A caption that fits, the tokens of its whole prompt, and what was done to make it fit.

    asked_again: how often the model was asked once more; trimmed: whether clauses were dropped;
    reworded: whether a reserved word was replaced or tagged.
    """

    caption: str
    tokens: int
    asked_again: int = 0
    trimmed: bool = False
    reworded: bool = False


@dataclass(frozen=True)
class CondenseStatistics:
    """Sums over captions: tokens of the prompts, and how many were asked again, trimmed, reworded.

    `asked_again` counts captions, `questions` the questions asked for them.
    """

    count: int
    limit: int
    max_tokens: int
    mean_tokens: float
    asked_again: int
    questions: int
    trimmed: int
    reworded: int

    @property
    def truncation_rate(self) -> float:
        """Share of the captions that lost clauses; 0 for none at all."""
        return self.trimmed / self.count if self.count else 0.0

    def as_json(self) -> dict[str, float]:
        """The counts and the rate, for a JSON file."""
        return asdict(self) | {"truncation_rate": self.truncation_rate}


def condense(
    source: Attributes | str,
    tokenizer: Any,
    rewrite: Rewrite | None = None,
    retries: int = 0,
    reserved: ReservedWords = "replace",
    prefix: str = PREFIX,
) -> Condensed:
    """One sentence that, with the prefix, has at most as many tokens as the tokenizer takes.

    `source`: attributes, of which the sentence is written, or a model's free text. A text that is
    empty, too long or of several sentences goes to `rewrite`, up to `retries` times. What then
    is still too long loses clauses from its end, where the least important ones stand.
    `reserved`: a caption's "lesion" and "skin" are replaced by other words; become the placeholder
    tokens, as in the released code; or are refused.
    Raises: ReservedWord with "refuse"; PrefixTooLong.
    """
    text = write_sentence(source) if isinstance(source, Attributes) else source
    caption, reworded, asked = "", False, 0
    while True:
        caption, reworded = reword(clean(text), reserved)
        fault = find_fault(text, caption, tokenizer, prefix)
        if fault is None or rewrite is None or asked >= retries:
            break
        asked += 1
        better = rewrite(text, fault)
        if better is None:
            break
        text = better
    prompt = build_prompt(caption, tokenizer, prefix)
    kept = prompt.removeprefix(prefix).strip()
    return Condensed(kept, count_tokens(prompt, tokenizer), asked, kept != caption, reworded)


def find_fault(text: str, caption: str, tokenizer: Any, prefix: str = PREFIX) -> str | None:
    """What is wrong with a text that became this caption, in words for the model; None: nothing."""
    if not caption:
        return "it is empty"
    limit = int(tokenizer.model_max_length)
    tokens = count_tokens(f"{prefix} {caption}", tokenizer)
    if tokens > limit:
        room = limit - count_tokens(prefix, tokenizer)
        return f"it is too long: {tokens - limit} tokens over; use at most {room} tokens"
    sentences = len(_sentences(clean(text)))
    return f"it has {sentences} sentences; write one" if sentences > 1 else None


def clean(text: str) -> str:
    """A model's text without markup, quotes around it, control characters and double spaces."""
    kept = _MARKUP.sub(lambda match: _tag_word(match[0]), text)
    kept = "".join(letter if letter.isprintable() else " " for letter in kept)
    return " ".join(kept.split()).strip("\"'` ")


def _tag_word(markup: str) -> str:
    """The reserved word for a tag, which is a word of the text; nothing for other markup."""
    word = markup[1:-1].lower()
    return word if word in RESERVED else " "


def reword(text: str, reserved: ReservedWords = "replace") -> tuple[str, bool]:
    """One sentence without plain reserved words, and whether there were any.

    Several sentences are joined by semicolons. Raises: ReservedWord with "refuse".
    """
    sentence = "; ".join(_sentences(text))
    if sentence:
        sentence += "."
    if reserved == "refuse":
        check_caption(sentence)
        return sentence, False
    rules = REPLACEMENTS if reserved == "replace" else tuple(TAGS.items())
    reworded = sentence
    for pattern, word in rules:
        reworded = re.sub(pattern, partial(_as_written, word), reworded, flags=re.IGNORECASE)
    return reworded, reworded != sentence


def _as_written(word: str, match: re.Match[str]) -> str:
    """The word with a capital where the match has it."""
    return word[0].upper() + word[1:] if match[0][0].isupper() else word


def _sentences(text: str) -> list[str]:
    parts = [part.strip(" ,;") for part in _SENTENCE_END.split(text)]
    return [part for part in parts if part]


def condense_statistics(results: Iterable[Condensed], tokenizer: Any) -> CondenseStatistics:
    """The sums over condensed captions."""
    results = list(results)
    tokens = [one.tokens for one in results]
    return CondenseStatistics(
        count=len(results),
        limit=int(tokenizer.model_max_length),
        max_tokens=max(tokens, default=0),
        mean_tokens=sum(tokens) / len(tokens) if tokens else 0.0,
        asked_again=sum(one.asked_again > 0 for one in results),
        questions=sum(one.asked_again for one in results),
        trimmed=sum(one.trimmed for one in results),
        reworded=sum(one.reworded for one in results),
    )
