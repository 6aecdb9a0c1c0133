"""The tiny backbone's tokenizer: CLIP's byte-level BPE over a small vocabulary of its own.

Every word of the list below is one token; any other text is spelled in pieces, down to bytes.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

START, END = "<|startoftext|>", "<|endoftext|>"
MODEL_MAX_LENGTH = 77
WORDS = """
a an and are as at but by for from has have in is it its no not of on or over that the there
this to very was which while with without all also any around both each few many more most much
near next none one only other several some than their these they three through two under up upon
image images photo photograph picture dermoscopic dermoscopy dermatoscopic clinical close view
field lesion lesions skin spot spots mole patch plaque nodule papule tumor area areas region
melanoma melanocytic nevus nevi basal cell carcinoma actinic keratosis benign dermatofibroma
angioma seborrheic bowen disease vascular hemangioma malignant suspicious pigmented
small medium large tiny big round oval irregular regular circular elliptical star shaped shape
symmetric asymmetric symmetry border borders edge edges sharp blurred fuzzy ill well defined
smooth uneven jagged outline size color colors colored coloration
light dark brown black red pink purple blue gray grey white tan yellow orange violet cream pale
bright deep reddish brownish pinkish bluish whitish yellowish grayish blackish mixed uniform
upper lower left right top bottom center central middle corner side located position positioned
tone intermediate fair surrounding background normal healthy
hair hairs dense thick thin sparse ruler scale ink mark marks gel bubble bubbles corners vignette
artifact artifacts glare reflection texture pattern network globules dots streaks veil vessels
lines structure structures structureless homogeneous scaly crust ulcer ulceration scar pore
cysts milia comedo pigment pigmentation shows showing appears visible slightly mostly partly
high low contrast covered crossed
"""


def alphabet() -> list[str]:
    """A printable character for each of the 256 bytes, in CLIP's order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + n) for n in range(len(others))]


def learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges, the commonest pair first (ties by spelling), until each word is one token.

    Raises: ValueError for words that are not lower-case ASCII letters.
    """
    if bad := [
        word for word in words if not (word.isascii() and word.isalpha() and word.islower())
    ]:
        raise ValueError(f"found {bad}: expected words of lower-case ASCII letters")
    spelled = {word: [*word[:-1], word[-1] + "</w>"] for word in dict.fromkeys(words)}
    merges: list[tuple[str, str]] = []
    while True:
        pairs = Counter(
            pair for pieces in spelled.values() for pair in zip(pieces, pieces[1:], strict=False)
        )
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for word, pieces in spelled.items():
            spelled[word] = merge_pair(pieces, best)


def merge_pair(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    """The pieces with each occurrence of the pair joined, from left to right."""
    joined: list[str] = []
    for piece in pieces:
        if joined and (joined[-1], piece) == pair:
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined


def write_tokenizer(folder: Path) -> None:
    """Write `vocab.json`, `merges.txt` and `tokenizer_config.json` as CLIP tokenizers have them."""
    merges = learn_merges(WORDS.split())
    characters = alphabet()
    tokens = [*characters, *(c + "</w>" for c in characters)]
    tokens += ["".join(pair) for pair in merges]
    # Two pairs can spell the same piece; it has one id.
    tokens = [*dict.fromkeys(tokens), START, END]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: number for number, token in enumerate(tokens)}
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": MODEL_MAX_LENGTH,
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": END,
        "do_lower_case": True,
        "add_prefix_space": False,
    }
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def build_tokenizer(folder: Path) -> Any:
    """Write the tokenizer's files to the folder and open them as a `CLIPTokenizer`."""
    from transformers import CLIPTokenizer

    write_tokenizer(folder)
    return CLIPTokenizer.from_pretrained(folder)
