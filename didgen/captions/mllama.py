"""Vision models through transformers: Llama 3.2 Vision (Mllama), and others with its interface.

Requests are completed in batches, greedily at temperature 0, each response following its schema: at
each step only tokens are allowed that keep the text valid.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    LogitsProcessor,
    LogitsProcessorList,
)

from didgen.captions.grammar import to_gbnf
from didgen.captions.llm import ChatRequest, ChatResponse, Failure, ModelError, Result
from didgen.captions.model_files import combined_identity, folder_identity, local_folder
from didgen.runtime.precision import default_device, pick_precision
from didgen.settings import extras
from didgen.settings.base import Precision

MODEL = "meta-llama/Llama-3.2-11B-Vision-Instruct"


class TransformersModel:
    """A vision model of transformers, held in this process.

    model: a folder, or owner/repository on the Hugging Face hub at `model_revision`; None: `MODEL`.
    device_map: as in accelerate; "auto" spreads the model over the visible GPUs, and over the
    processor where they are too small. batch_size: requests completed at once.
    Raises: `ModelError`; `MissingExtra`.
    """

    def __init__(
        self,
        model: str | None,
        model_revision: str | None,
        batch_size: int,
        precision: Precision,
        device_map: str,
    ) -> None:
        extras.require("llguidance", "captioner: transformers")
        folder = local_folder(model or MODEL, model_revision)
        kind = pick_precision(precision, default_device())
        try:
            self._processor = AutoProcessor.from_pretrained(folder)
            self._model = AutoModelForImageTextToText.from_pretrained(
                folder, dtype=getattr(torch, kind), device_map=device_map, use_safetensors=True
            ).eval()
        except (ValueError, KeyError) as error:
            raise ModelError(
                f"{folder}: no vision model that transformers knows ({error}); expected one such "
                f"as {MODEL}"
            ) from None
        if not getattr(self._processor, "chat_template", None):
            raise ModelError(f"{folder}: no chat template; use an instruction-tuned model")
        tokenizer = self._processor.tokenizer
        # The padding must not stand between a question and its answer.
        tokenizer.padding_side = "left"
        self._end = _end_tokens(self._model, tokenizer)
        self._pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self._end[0]
        self._batch_size = batch_size
        self._vocabulary: Any = None

    @staticmethod
    def identify(
        model: str | None, model_revision: str | None, precision: Precision, **_: Any
    ) -> str:
        """SHA-256 of the folder's files and the arithmetic."""
        # The arithmetic is decided where the model is loaded; asking here would open the GPU.
        device = "cuda" if torch.cuda.is_available() else "cpu"
        arithmetic = f"{precision} on {device}"
        folder = local_folder(model or MODEL, model_revision)
        return combined_identity("transformers", folder_identity(folder), arithmetic)

    def complete(self, requests: Iterable[ChatRequest]) -> Iterator[tuple[int, Result]]:
        """Each request's index with its result, batch after batch."""
        batch: list[tuple[int, ChatRequest]] = []
        for numbered in enumerate(requests):
            if batch and (len(batch) == self._batch_size or not _alike(batch[0][1], numbered[1])):
                yield from self._complete_batch(batch)
                batch = []
            batch.append(numbered)
        if batch:
            yield from self._complete_batch(batch)

    def close(self) -> None:
        """Free the weights."""
        del self._model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _complete_batch(self, batch: list[tuple[int, ChatRequest]]) -> Iterator[tuple[int, Result]]:
        started = time.monotonic()
        requests = [request for _, request in batch]
        inputs = self._inputs(requests)
        width = inputs["input_ids"].shape[1]
        first = requests[0]
        drawn: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None}
        if first.temperature > 0:
            torch.manual_seed(first.seed)
            drawn = {"do_sample": True, "temperature": first.temperature}
        produced = self._model.generate(
            **inputs, **drawn, max_new_tokens=first.max_tokens, pad_token_id=self._pad,
            eos_token_id=list(self._end), logits_processor=self._constraint(first, width),
        )  # fmt: skip
        seconds = (time.monotonic() - started) / len(batch)
        sent = inputs["attention_mask"].sum(dim=1).tolist()
        for row, (index, _) in enumerate(batch):
            yield index, self._read(produced[row, width:].tolist(), sent[row], seconds)

    def _inputs(self, requests: list[ChatRequest]) -> Any:
        """Padded token ids, pixels and masks on the model's device."""
        texts = [
            self._processor.apply_chat_template(_messages(request), add_generation_prompt=True)
            for request in requests
        ]
        # All of a batch have one, or none has.
        files = [request.image for request in requests if request.image is not None]
        images = [[Image.fromarray(file.pixels())] for file in files] or None
        inputs = self._processor(
            images=images, text=texts, return_tensors="pt", padding=True, add_special_tokens=False
        )
        return inputs.to(self._model.device)

    def _constraint(self, request: ChatRequest, width: int) -> LogitsProcessorList:
        if request.schema is None:
            return LogitsProcessorList()
        if self._vocabulary is None:
            self._vocabulary = vocabulary_of(self._processor.tokenizer, self._end)
        constraint = SchemaLogits(request.schema, self._vocabulary, width, self._end)
        return LogitsProcessorList([constraint])

    def _read(self, tokens: list[int], sent: int, seconds: float) -> Result:
        length = next((k for k, token in enumerate(tokens) if token in self._end), None)
        if length is None:
            return Failure(f"the answer was cut off after {len(tokens)} tokens")
        text = self._processor.tokenizer.decode(tokens[:length], skip_special_tokens=True)
        return ChatResponse(text.strip(), sent, length, seconds)


def _alike(first: ChatRequest, other: ChatRequest) -> bool:
    """Whether two requests can be completed in one batch."""
    return all(
        getattr(first, name) == getattr(other, name)
        for name in ("schema", "max_tokens", "temperature", "seed")
    ) and (first.image is None) == (other.image is None)


def _end_tokens(model: Any, tokenizer: Any) -> tuple[int, ...]:
    named = model.generation_config.eos_token_id
    listed = named if isinstance(named, list | tuple) else [named]
    tokens = dict.fromkeys([*listed, tokenizer.eos_token_id])
    tokens.pop(None, None)
    if not tokens:
        raise ModelError("neither the model nor its tokenizer names the token that ends an answer")
    return tuple(tokens)


def _messages(request: ChatRequest) -> list[dict[str, Any]]:
    content = [{"type": "text", "text": f"{request.system}\n\n{request.text}"}]
    if request.image is not None:
        content.insert(0, {"type": "image"})
    # Llama 3.2 Vision takes no system turn beside an image.
    return [{"role": "user", "content": content}]


class SchemaLogits(LogitsProcessor):
    """Sets the scores of all tokens to -inf that the schema forbids; one batch, then discard it.

    vocabulary: of `vocabulary_of`. prompt: (padded) tokens before the first new one. end: ids of
    which each ends an answer. Raises: `ModelError` for a schema that cannot be followed.
    """

    def __init__(
        self,
        schema: Mapping[str, Any],
        vocabulary: Any,
        prompt: int,
        end: tuple[int, ...],
    ) -> None:
        """Compile the schema; each row of the batch then has its own state."""
        import llguidance
        import llguidance.gbnf_to_lark

        # The grammar of llama.cpp's models, so that both write a value in the same one way.
        lark = llguidance.gbnf_to_lark.gbnf_to_lark(to_gbnf(schema))
        grammar = llguidance.LLMatcher.grammar_from_lark(lark)
        self._first = llguidance.LLMatcher(vocabulary, grammar)
        if self._first.is_error():
            raise ModelError(f"the request's schema: {self._first.get_error()}")
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


def vocabulary_of(tokenizer: Any, end: tuple[int, ...]) -> Any:
    """The tokenizer's vocabulary as bytes; takes about a second, so keep it. Raises: `ModelError`.

    end: ids of which each ends an answer.
    """
    import llguidance.hf

    try:
        return llguidance.hf.from_tokenizer(tokenizer, eos_token=list(end))
    except ValueError as error:
        raise ModelError(
            f"the model's tokenizer cannot be used for constrained decoding ({error}); it needs a "
            "tokenizer.json"
        ) from None
