"""Prompts: the prefix with placeholder tokens, then a caption trimmed to the tokenizer's limit."""

import bisect
import re
from typing import Any

PREFIX = "An image of <lesion> on <skin>."
RESERVED = ("lesion", "skin")
TAGS = {word: f"<{word}>" for word in RESERVED}


class ReservedWord(ValueError):
    """A caption uses a word that belongs to the placeholder tokens."""


class PrefixTooLong(ValueError):
    """The tokenizer's limit leaves no room even for the prefix."""


def count_tokens(prompt: str, tokenizer: Any) -> int:
    """Number of tokens of a prompt, the start and end tokens included, without truncation."""
    return len(tokenizer(prompt, truncation=False, verbose=False)["input_ids"])


def placeholder_positions(prompt: str, tokenizer: Any) -> dict[str, list[int]]:
    """Every position of each placeholder token in a prompt; position 0 is the start token.

    The first ones are those of the prefix. A caption adds others only where it was tagged.
    """
    ids = tokenizer(prompt, truncation=False, verbose=False)["input_ids"]
    wanted = {tag: tokenizer.convert_tokens_to_ids(tag) for tag in TAGS.values()}
    return {tag: [k for k, one in enumerate(ids) if one == token] for tag, token in wanted.items()}


def check_caption(caption: str) -> None:
    """Refuse a caption that holds a reserved word, which would blur the placeholders' maps.

    The tags themselves are allowed: a caption has them only where they were put on purpose.
    Raises: ReservedWord.
    """
    plain = caption.lower()
    for tag in TAGS.values():
        plain = plain.replace(tag, "")
    for word in RESERVED:
        if word in plain:
            raise ReservedWord(
                f"the caption {caption!r} holds the reserved word {word!r}, which belongs to the "
                f"placeholder token <{word}>; use another word, e.g. "
                f"{'spot' if word == 'lesion' else 'tone'!r}"
            )


def build_prompt(caption: str, tokenizer: Any, prefix: str = PREFIX) -> str:
    """Prefix, a space and the caption, trimmed at a clause boundary until the tokenizer takes it.

    An empty caption gives the prefix alone. Where even the first clause is too long, it is cut
    between words.
    Raises: ReservedWord; PrefixTooLong.
    """
    check_caption(caption)
    limit = int(tokenizer.model_max_length)
    if count_tokens(prefix, tokenizer) > limit:
        raise PrefixTooLong(
            f"the prefix {prefix!r} alone takes {count_tokens(prefix, tokenizer)} tokens, the "
            f"tokenizer's limit is {limit}; use a tokenizer with a longer limit"
        )
    caption = " ".join(caption.split())
    if not caption:
        return prefix
    # Ends of the caption: the whole, without its last clause, and so on; then, of the first
    # clause, without its last word, and so on. Each is shorter than the one before, so that a few
    # trials find the first that fits.
    clauses = [match.start() for match in re.finditer(r"[,;.](?=\s)", caption)]
    first = clauses[0] if clauses else len(caption.rstrip(". "))
    words = [match.start() for match in re.finditer(r" ", caption[:first])]
    ends = [len(caption), *reversed(clauses), *reversed(words)]

    def prompt(end: int) -> str:
        return f"{prefix} {caption if end == len(caption) else caption[:end] + '.'}"

    fits = bisect.bisect_left(
        ends, True, key=lambda end: count_tokens(prompt(end), tokenizer) <= limit
    )
    return prompt(ends[fits]) if fits < len(ends) else prefix
