"""Hand-made images and the real CLIP vocabulary."""

import gzip
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def clip_tokenizer(tmp_path_factory):
    """CLIP's own byte-pair vocabulary (as open_clip ships it) in a transformers CLIPTokenizer."""
    # Found, not imported: open_clip pulls in torch and timm.
    package = importlib.util.find_spec("open_clip")
    assert package, "open_clip_torch, which ships CLIP's vocabulary, is not installed"
    from transformers import AddedToken, CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    source = Path(package.origin).parent / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(source.read_bytes()).decode().split("\n")
    merges = lines[1 : 49152 - 256 - 2 + 1]
    letters = list(bytes_to_unicode().values())
    words = letters + [letter + "</w>" for letter in letters]
    words += [merge.replace(" ", "") for merge in merges]
    words += ["<|startoftext|>", "<|endoftext|>"]
    folder = tmp_path_factory.mktemp("clip")
    (folder / "vocab.json").write_text(json.dumps({word: k for k, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    tokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=77)
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in ("<lesion>", "<skin>")])
    return tokenizer


@pytest.fixture
def draw():
    """Paint a mask in one flat color on flat surroundings: (mask, inner, outer) -> uint8 image."""

    def paint(mask: np.ndarray, inner=(120, 70, 50), outer=(225, 185, 160)) -> np.ndarray:
        image = np.empty((*mask.shape, 3), dtype=np.uint8)
        image[:] = outer
        image[mask] = inner
        return image

    return paint


@pytest.fixture
def ellipse():
    """A filled ellipse: (size, row, column, radius_rows, radius_columns) in shares of the side."""

    def build(size, row, column, radius_row, radius_column) -> np.ndarray:
        grid = (np.arange(size) + 0.5) / size
        return ((grid[:, None] - row) / radius_row) ** 2 + (
            (grid[None] - column) / radius_column
        ) ** 2 <= 1

    return build
