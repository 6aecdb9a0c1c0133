"""Vision models through transformers: Llama 3.2 Vision (Mllama), and others with its interface.

Questions are answered in batches, greedily at temperature 0, each answer following its schema.
"""

import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from PIL import Image

from didgen.captions.captioner import Answer, Failure, ModelError, Question, Result
from didgen.captions.model_files import combined_identity, folder_identity, local_folder
from didgen.runtime.precision import Precision, default_device, pick_precision
from didgen.settings import extras

MODEL = "meta-llama/Llama-3.2-11B-Vision-Instruct"


class TransformersModel:
    """A vision model of transformers, held in this process.

    model: a folder, or owner/repository on the Hugging Face hub at `revision`. device_map: as in
    accelerate; "auto" spreads the model over the visible GPUs, and over the processor where they
    are too small. batch_size: questions answered at once. Raises: `ModelError`.
    """

    def __init__(
        self,
        model: str = MODEL,
        revision: str | None = None,
        batch_size: int = 4,
        precision: Precision = "auto",
        device_map: str = "auto",
    ) -> None:
        extras.require("llguidance", "captioner: transformers")
        from transformers import AutoModelForImageTextToText, AutoProcessor

        folder = local_folder(model, revision)
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
    def identify(model: str = MODEL, revision: str | None = None, **options: Any) -> str:
        """SHA-256 of the folder's files and the arithmetic."""
        # The arithmetic is decided where the model is loaded; asking here would open the GPU.
        device = "cuda" if torch.cuda.is_available() else "cpu"
        arithmetic = f"{options.get('precision', 'auto')} on {device}"
        folder = local_folder(model, revision)
        return combined_identity("transformers", folder_identity(folder), arithmetic)

    def answer(self, questions: Iterable[Question]) -> Iterator[tuple[int, Result]]:
        """Each question's index with its result, batch after batch."""
        batch: list[tuple[int, Question]] = []
        for numbered in enumerate(questions):
            if batch and (len(batch) == self._batch_size or not _alike(batch[0][1], numbered[1])):
                yield from self._answer_batch(batch)
                batch = []
            batch.append(numbered)
        if batch:
            yield from self._answer_batch(batch)

    def close(self) -> None:
        """Free the weights."""
        del self._model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _answer_batch(self, batch: list[tuple[int, Question]]) -> Iterator[tuple[int, Result]]:
        started = time.monotonic()
        questions = [question for _, question in batch]
        inputs = self._inputs(questions)
        width = inputs["input_ids"].shape[1]
        first = questions[0]
        drawn: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None}
        if first.temperature > 0:
            torch.manual_seed(first.seed)
            drawn = {"do_sample": True, "temperature": first.temperature}
        produced = self._model.generate(
            **inputs, **drawn, max_new_tokens=first.max_tokens, pad_token_id=self._pad,
            eos_token_id=list(self._end), logits_processor=self._constraint(first, width),
        )  # fmt: skip
        seconds = (time.monotonic() - started) / len(batch)
        asked = inputs["attention_mask"].sum(dim=1).tolist()
        for row, (index, _) in enumerate(batch):
            yield index, self._read(produced[row, width:].tolist(), asked[row], seconds)

    def _inputs(self, questions: list[Question]) -> Any:
        """Padded token ids, pixels and masks on the model's device."""
        texts = [
            self._processor.apply_chat_template(_messages(question), add_generation_prompt=True)
            for question in questions
        ]
        # All of a batch have one, or none has.
        files = [question.image for question in questions if question.image is not None]
        images = [[Image.fromarray(file.pixels())] for file in files] or None
        inputs = self._processor(
            images=images, text=texts, return_tensors="pt", padding=True, add_special_tokens=False
        )
        return inputs.to(self._model.device)

    def _constraint(self, question: Question, width: int) -> Any:
        from transformers import LogitsProcessorList

        if question.schema is None:
            return LogitsProcessorList()
        from didgen.captions.constrained import SchemaLogits, vocabulary_of

        if self._vocabulary is None:
            self._vocabulary = vocabulary_of(self._processor.tokenizer, self._end)
        constraint = SchemaLogits(question.schema, self._vocabulary, width, self._end)
        return LogitsProcessorList([constraint])

    def _read(self, tokens: list[int], asked: int, seconds: float) -> Result:
        length = next((k for k, token in enumerate(tokens) if token in self._end), None)
        if length is None:
            return Failure(f"the answer was cut off after {len(tokens)} tokens")
        text = self._processor.tokenizer.decode(tokens[:length], skip_special_tokens=True)
        return Answer(text.strip(), asked, length, seconds)


def _alike(first: Question, other: Question) -> bool:
    """Whether two questions can be answered in one batch."""
    return all(
        getattr(first, name) == getattr(other, name)
        for name in ("schema", "max_tokens", "temperature", "seed")
    ) and (first.image is None) == (other.image is None)


def _end_tokens(model: Any, tokenizer: Any) -> tuple[int, ...]:
    named = model.generation_config.eos_token_id
    listed = named if isinstance(named, list | tuple) else [named]
    found = dict.fromkeys([*listed, tokenizer.eos_token_id])
    found.pop(None, None)
    if not found:
        raise ModelError("neither the model nor its tokenizer names the token that ends an answer")
    return tuple(found)


def _messages(question: Question) -> list[dict[str, Any]]:
    content = [{"type": "text", "text": f"{question.system}\n\n{question.text}"}]
    if question.image is not None:
        content.insert(0, {"type": "image"})
    # Llama 3.2 Vision takes no system turn beside an image.
    return [{"role": "user", "content": content}]
