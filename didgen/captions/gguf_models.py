"""GGUF models through llama.cpp: vision models with a projector file, or text models alone.

The response follows the request's schema by construction. To be run in `IsolatedModel`: llama.cpp
ends the process on many faults of a model file.
"""

import base64
import json
import os
import time
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from didgen.captions.grammar import to_gbnf
from didgen.captions.llm import ChatRequest, ChatResponse, Failure, ModelError, Result
from didgen.captions.model_files import combined_identity, file_identity, local_file
from didgen.settings import extras
from didgen.settings.caption import ChatFormat

# A LLaVA on Llama-3-8B-Instruct; the files of one repository belong together.
MODEL = "xtuner/llava-llama-3-8b-v1_1-gguf/llava-llama-3-8b-v1_1-int4.gguf"
PROJECTOR = "xtuner/llava-llama-3-8b-v1_1-gguf/llava-llama-3-8b-v1_1-mmproj-f16.gguf"
# Where libmtmd puts the image; no text of a request may hold it.
MARKER = "<__media__>"
# Llama 3's turns, the image before the text. The library's own handlers for Llama 3 leave out the
# system's turn, or write the roles of another family.
LLAMA_3_TURNS = (
    "{% for message in messages %}"
    "<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n"
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}"
    "{% if part.type == 'image_url' %}{{ part.image_url.url }}\n{% endif %}"
    "{% if part.type == 'text' %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}"
    "<|eot_id|>"
    "{% endfor %}"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)


class GgufModel:
    """A GGUF model, held in this process.

    model, mmproj: files, or "owner/repository/file.gguf" on the Hugging Face hub; without `mmproj`
    it takes requests without images; without `model` it is `MODEL` with its `PROJECTOR`.
    gpu_layers: -1 puts all on the GPU, if the library was built for one. Raises: `ModelError`.
    """

    def __init__(
        self,
        model: str | None,
        mmproj: str | None,
        chat_format: ChatFormat,
        context: int,
        gpu_layers: int,
        threads: int | None,
    ) -> None:
        llama_cpp = _library()
        model, mmproj = _files(model, mmproj)
        path = local_file(model)
        handler = _handler(chat_format, local_file(mmproj)) if mmproj else None
        try:
            # Verbose only here: what a failing load prints says why.
            self._llama = llama_cpp.Llama(
                model_path=str(path), chat_handler=handler, n_ctx=context, verbose=True,
                n_gpu_layers=gpu_layers, n_threads=threads, n_threads_batch=threads,
            )  # fmt: skip
            if handler is not None:
                handler._init_mtmd_context(self._llama)
        except ValueError as error:
            files = f"{path} with {mmproj}" if mmproj else f"{path}"
            raise ModelError(
                f"llama.cpp cannot load {files}: {error}; check that the files are whole and "
                "belong together"
            ) from None
        if handler is not None and chat_format == "mtmd":
            _check_template(self._llama.metadata.get("tokenizer.chat_template", ""), path)
        self._sees = handler is not None
        self._llama.verbose = False
        if handler is not None:
            handler.verbose = False
        self._grammar = lru_cache(maxsize=16)(self._checked_grammar)

    @staticmethod
    def identify(model: str | None, mmproj: str | None, chat_format: ChatFormat, **_: Any) -> str:
        """SHA-256 of the files' contents and the chat format."""
        model, mmproj = _files(model, mmproj)
        files = [file_identity(local_file(name)) for name in (model, mmproj) if name]
        return combined_identity("llama_cpp", *files, chat_format if mmproj else "own")

    def complete(self, requests: Iterable[ChatRequest]) -> Iterator[tuple[int, Result]]:
        """Each request's index with its result, one after the other."""
        for index, request in enumerate(requests):
            try:
                yield index, self._complete(request)
            except ModelError:
                raise
            except (ValueError, RuntimeError) as error:
                yield index, Failure(str(error))

    def close(self) -> None:
        """Free the model and its vision part."""
        self._llama.close()

    def _complete(self, request: ChatRequest) -> Result:
        if MARKER in request.system + request.text:
            raise ValueError(f"the request holds {MARKER}, which stands for an image")
        if request.image is not None and not self._sees:
            raise ModelError("a request with an image, but no mmproj file is given")
        schema = request.schema
        started = time.monotonic()
        reply = self._llama.create_chat_completion(
            _messages(request),
            grammar=self._grammar(json.dumps(schema)) if schema is not None else None,
            temperature=request.temperature,
            seed=request.seed,
            max_tokens=request.max_tokens,
            # A penalty on repeated tokens would work against JSON's own.
            repeat_penalty=1.0,
        )
        seconds = time.monotonic() - started
        choice, usage = reply["choices"][0], reply["usage"]
        if choice["finish_reason"] != "stop":
            return Failure(f"the answer was cut off after {usage['completion_tokens']} tokens")
        return ChatResponse(
            choice["message"]["content"] or "",
            usage["prompt_tokens"],
            usage["completion_tokens"],
            seconds,
        )

    def _checked_grammar(self, schema: str) -> Any:
        """The schema's grammar. llama.cpp would crash later on one that it cannot parse."""
        llama_cpp = _library()
        text = to_gbnf(json.loads(schema))
        sampler = llama_cpp.llama_sampler_init_grammar(
            self._llama._model.vocab, text.encode(), b"root"
        )
        if not sampler:
            raise ModelError("llama.cpp cannot parse the grammar of the request's schema")
        llama_cpp.llama_sampler_free(sampler)
        return llama_cpp.LlamaGrammar.from_string(text)


def _files(model: str | None, mmproj: str | None) -> tuple[str, str | None]:
    return (MODEL, PROJECTOR) if model is None else (model, mmproj)


def _library() -> Any:
    # On an assertion ggml would start a debugger for a backtrace, which takes seconds.
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    extras.require("llama_cpp", "captioner: llama_cpp")
    import llama_cpp

    return llama_cpp


def _handler(chat_format: ChatFormat, mmproj: Path) -> Any:
    from llama_cpp import llama_chat_format as formats

    class Llama3Handler(formats.Llava15ChatHandler):
        """LLaVA's image handling with Llama 3's turns."""

        DEFAULT_SYSTEM_MESSAGE = None
        CHAT_FORMAT = LLAMA_3_TURNS

    kinds = {
        "llama-3": Llama3Handler,
        "mtmd": formats.MTMDChatHandler,
        "llava-1.5": formats.Llava15ChatHandler,
    }
    return kinds[chat_format](clip_model_path=str(mmproj), verbose=True)


def _check_template(template: str, path: Path) -> None:
    """Refuse a template that takes a message for text: it would print the list of its parts."""
    from jinja2.exceptions import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    parts = [{"type": "text", "text": "seen"}]
    try:
        text = (
            ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
            .from_string(template)
            .render(
                messages=[{"role": "user", "content": parts}], bos_token="", eos_token="",
                add_generation_prompt=True,
            )
        )  # fmt: skip
    except TemplateError:
        # It asks for functions of the library's own; only what is seen to be wrong is refused.
        return
    if "'type'" in text or "seen" not in text:
        raise ModelError(
            f"{path}: its chat template takes text alone, so no image would be seen; set "
            "chat_format: llama-3 for a model on Llama 3, or use a file with a template for images"
        )


def _messages(request: ChatRequest) -> list[dict[str, Any]]:
    content: Any = request.text
    if request.image is not None:
        # Own PNG data only: the library would also follow file:// and http:// addresses.
        data = "data:image/png;base64," + base64.b64encode(request.image.png()).decode()
        content = [
            {"type": "image_url", "image_url": {"url": data}},
            {"type": "text", "text": request.text},
        ]
    return [
        {"role": "system", "content": request.system},
        {"role": "user", "content": content},
    ]
