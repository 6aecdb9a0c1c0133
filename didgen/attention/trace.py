"""Cross-attention maps of the words of a prompt, while any diffusers pipeline samples.

Shapes: B images of the pipeline's call, H and W cells of the maps.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from didgen.attention.layers import CROSS_SIDE, AttentionRecordingError
from didgen.attention.recorder import AttentionRecorder


class TokenMaps(Mapping[str, Tensor]):
    """word -> its map (B, H, W), float32, averaged over steps, layers, heads and its pieces."""

    def __init__(self, words: Sequence[str], pieces: Mapping[str, Sequence[int]]) -> None:
        self._pieces = {word: pieces[word] for word in words}
        self._sums: dict[str, Tensor] = {}
        self._passes = 0
        self._prompts: list[list[int]] = []
        self._unguided = 0
        self._fresh = False

    def __getitem__(self, word: str) -> Tensor:
        if not self._passes and word in self._pieces:
            raise AttentionRecordingError("nothing is recorded yet; call the pipeline first")
        return self._sums[word] / self._passes

    def __iter__(self) -> Iterator[str]:
        return iter(self._pieces)

    def __len__(self) -> int:
        return len(self._pieces)

    def read_prompts(self, ids: Sequence[Sequence[int]]) -> None:
        """Record the token ids of a call of the text encoder.

        The first call after a pass starts another image; prompts without any of the words are
        those of the unguided half.
        """
        if self._fresh:
            self._prompts, self._unguided, self._fresh = [], 0, False
        with_words = [row for row in ids if all(_find(row, p) for p in self._pieces.values())]
        if with_words and len(with_words) == len(ids):
            self._prompts += [list(row) for row in ids]
        elif not self._prompts:
            missing = [w for w, p in self._pieces.items() if not all(_find(r, p) for r in ids)]
            raise AttentionRecordingError(f"a prompt lacks {missing}; expected every word in each")
        else:
            self._unguided += len(ids)

    def read_pass(self, recorder: AttentionRecorder) -> None:
        """Add the maps of a pass of the UNet: of its guided half, which comes last."""
        self._fresh = True
        batch = len(recorder.captures("cross")[0].query)
        guided = batch // 2 if self._unguided else batch
        repeats, rest = divmod(guided, len(self._prompts) or 1)
        if not self._prompts or rest:
            raise AttentionRecordingError(
                f"the UNet ran on {guided} images, expected a multiple of the "
                f"{len(self._prompts)} prompts that the text encoder read"
            )
        rows = [row for row in self._prompts for _ in range(repeats)]
        for word, pieces in self._pieces.items():
            places = [_find(row, pieces) for row in rows]
            # The unguided half is not read; any position serves there.
            maps = recorder.cross_maps([places[0]] * (batch - guided) + places)
            mean = maps[batch - guided :].float().mean(1).detach()
            self._sums[word] = mean if word not in self._sums else self._sums[word] + mean
        self._passes += 1


@contextmanager
def record_attention(
    pipe: Any, tokens: Sequence[str], resolution: int = CROSS_SIDE
) -> Iterator[TokenMaps]:
    """Inside, a pipeline's calls are recorded: the maps of these words of its prompts.

    pipe: a diffusers pipeline with `unet`, `tokenizer` and `text_encoder`. resolution: side of the
    maps, cells. What the pipeline returns stays the same to the bit.

    Raises: `TypeError` for a pipeline without one of these, or words that are no list of texts;
    `AttentionRecordingError` for a prompt without one of the words, or a resolution at which no
    layer works.
    """
    absent = [n for n in ("unet", "tokenizer", "text_encoder") if getattr(pipe, n, None) is None]
    if absent:
        raise TypeError(
            f"pipe: found a {type(pipe).__name__} without {', '.join(absent)}, expected a "
            "diffusers pipeline of Stable Diffusion 1.x or 2.x"
        )
    tokens = tokens if isinstance(tokens, str) else list(tokens)
    if isinstance(tokens, str) or not all(isinstance(word, str) for word in tokens):
        raise TypeError(f"tokens: found {tokens!r}, expected a list of words, such as ['lesion']")
    if not tokens or not all(word.strip() for word in tokens):
        raise ValueError(f"tokens: found {tokens!r}, expected at least one word, and none empty")
    pieces = {word: pipe.tokenizer(word, add_special_tokens=False).input_ids for word in tokens}
    maps = TokenMaps(tokens, pieces)

    def on_text(module: nn.Module, args: tuple, kwargs: dict) -> None:
        ids = args[0] if args else kwargs["input_ids"]
        maps.read_prompts(torch.as_tensor(ids).tolist())

    handle = pipe.text_encoder.register_forward_pre_hook(on_text, with_kwargs=True)
    try:
        with AttentionRecorder(pipe.unet, cross={"resolution": resolution}) as recorder:
            # After the recorder's own hook, so that the pass is complete.
            after = pipe.unet.register_forward_hook(lambda *_: maps.read_pass(recorder))
            try:
                yield maps
            finally:
                after.remove()
    finally:
        handle.remove()


def _find(row: Sequence[int], pieces: Sequence[int]) -> list[int]:
    """The positions of the first run of these ids; none where there is no such run."""
    for start in range(len(row) - len(pieces) + 1):
        if list(row[start : start + len(pieces)]) == list(pieces):
            return list(range(start, start + len(pieces)))
    return []
