"""Decoding that follows a JSON schema: at each step only tokens that keep the text valid."""

from collections.abc import Mapping
from typing import Any

import llguidance
import llguidance.gbnf_to_lark
import llguidance.hf
import numpy as np
import torch
from transformers import LogitsProcessor

from didgen.captions.captioner import ModelError
from didgen.captions.grammar import to_gbnf


class SchemaLogits(LogitsProcessor):
    """Sets the scores of all tokens to -inf that the schema forbids; one batch, then discard it.

    vocabulary: of `vocabulary_of`. prompt: (padded) tokens before the first new one. end: ids of
    which each ends an answer. Raises: `ModelError` for a schema that cannot be followed.
    """

    def __init__(
        self,
        schema: Mapping[str, Any],
        vocabulary: llguidance.LLTokenizer,
        prompt: int,
        end: tuple[int, ...],
    ) -> None:
        """Compile the schema; each row of the batch then has its own state."""
        # The grammar of llama.cpp's models, so that both write a value in the same one way.
        lark = llguidance.gbnf_to_lark.gbnf_to_lark(to_gbnf(schema))
        grammar = llguidance.LLMatcher.grammar_from_lark(lark)
        self._first = llguidance.LLMatcher(vocabulary, grammar)
        if self._first.is_error():
            raise ModelError(f"the question's schema: {self._first.get_error()}")
        self._rows: list[Any] = []
        self._prompt, self._end = prompt, list(end)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Mask the scores. Shapes: input_ids (B, T), scores (B, V)."""
        if not self._rows:
            self._rows = [self._first.deep_copy() for _ in input_ids]
        elif input_ids.shape[1] > self._prompt:
            for row, token in zip(self._rows, input_ids[:, -1].tolist(), strict=True):
                if not row.is_stopped() and token not in self._end:
                    row.consume_token(token)
        allowed = np.stack([self._allowed(row, scores.shape[1]) for row in self._rows])
        return scores.masked_fill(torch.from_numpy(~allowed).to(scores.device), -torch.inf)

    def _allowed(self, row: Any, size: int) -> np.ndarray:
        """Which tokens may follow, bool (V,); after the answer's end only what ends it."""
        allowed = np.zeros(size, dtype=bool)
        if row.is_stopped():
            allowed[self._end] = True
            return allowed
        bits = np.unpackbits(np.frombuffer(row.compute_bitmask(), np.uint8), bitorder="little")
        allowed[: min(size, len(bits))] = bits[:size]
        if row.is_accepting():
            allowed[self._end] = True
        return allowed


def vocabulary_of(tokenizer: Any, end: tuple[int, ...]) -> llguidance.LLTokenizer:
    """The tokenizer's vocabulary as bytes; takes about a second, so keep it. Raises: `ModelError`.

    end: ids of which each ends an answer.
    """
    try:
        return llguidance.hf.from_tokenizer(tokenizer, eos_token=list(end))
    except ValueError as error:
        raise ModelError(
            f"the model's tokenizer cannot be used for constrained decoding ({error}); it needs a "
            "tokenizer.json"
        ) from None
