"""Placeholder tokens: words of their own for the lesion and the skin, one token each."""

from typing import Any

import torch

PLACEHOLDERS = {"<lesion>": "lesion", "<skin>": "skin"}


def add_placeholder_tokens(
    tokenizer: Any, text_encoder: Any, init: str = "mean", tokens: dict[str, str] | None = None
) -> dict[str, int]:
    """Add the placeholder tokens in place and return their ids.

    An embedding starts as that of the plain word: the mean of the word's pieces (`init` "mean")
    or its first piece ("first"). CLIP splits "lesion" into "le" and "sion", and the first piece
    alone is no word. Tokens that are there already are left as they are.

    Raises: ValueError for an unknown `init`.
    """
    from transformers import AddedToken

    if init not in ("mean", "first"):
        raise ValueError(f"init is {init!r}: expected 'mean' or 'first'")
    wanted = PLACEHOLDERS if tokens is None else tokens
    known = tokenizer.get_vocab()
    new = {token: word for token, word in wanted.items() if token not in known}
    pieces = {token: word_pieces(tokenizer, word) for token, word in new.items()}
    # Not normalized: the text must match as written, before lower-casing and splitting.
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in new])
    if len(tokenizer) > text_encoder.get_input_embeddings().num_embeddings:
        text_encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    weights = text_encoder.get_input_embeddings().weight
    with torch.no_grad():
        for token, ids in pieces.items():
            chosen = ids if init == "mean" else ids[:1]
            row = weights[chosen].float().mean(dim=0)
            weights[tokenizer.convert_tokens_to_ids(token)] = row.to(weights.dtype)
    return {token: tokenizer.convert_tokens_to_ids(token) for token in wanted}


def word_pieces(tokenizer: Any, word: str) -> list[int]:
    """Token ids of a word, without start and end tokens."""
    return tokenizer(word, add_special_tokens=False).input_ids
