"""Settings of `caption`."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from didgen.settings.addresses import ServerAddress
from didgen.settings.base import Place, Precision, SettingsSection
from didgen.settings.captioners import Captioner

ChatFormat = Literal["llama-3", "mtmd", "llava-1.5"]
AnswerFormat = Literal["json_schema", "json_object", "text"]
ReservedWords = Literal["replace", "tag", "refuse"]


class Settings(SettingsSection):
    """How captions are made."""

    captioner: Captioner = Field(
        "measure",
        description="`measure`: attributes computed from image and mask, no model; an image "
        "without a mask is segmented first. Of a vision model that sees the image alone: "
        "`llama_cpp` (GGUF files), `transformers` (Llama 3.2 Vision), `openai` (any server with "
        "that interface)",
    )
    workers: int | None = Field(
        None, ge=1, le=256, description="processes that measure; null: one for each core"
    )
    model: Place | None = Field(
        None,
        description="llama_cpp: GGUF file, or owner/repository/file on the Hugging Face hub; "
        "transformers: folder or hub id; openai: the name under which the server has it; null: a "
        "Llama 3 vision model",
    )
    mmproj: Place | None = Field(
        None, description="llama_cpp: projector file that belongs to `model`, named like it"
    )
    model_revision: str | None = Field(
        None, description="transformers: commit, tag or branch of the hub id; null: the newest"
    )
    chat_format: ChatFormat = Field(
        "llama-3",
        description="llama_cpp: how turns are written; `mtmd`: as the file's own template says",
    )
    context: int = Field(
        4096, ge=512, le=131072, description="llama_cpp: tokens of question, image and answer"
    )
    gpu_layers: int = Field(
        -1, ge=-1, le=1000, description="llama_cpp: layers on the GPU, if built for one; -1: all"
    )
    threads: int | None = Field(
        None, ge=1, le=256, description="llama_cpp: processor threads; null: half the cores"
    )
    batch_size: int = Field(4, ge=1, le=256, description="transformers: images described at once")
    precision: Precision = Field(
        "auto", description="transformers: arithmetic; `auto`: bfloat16 where it is quick"
    )
    device_map: str = Field(
        "auto", description="transformers: device, or `auto`: over `gpus`, then the processor"
    )
    gpus: int = Field(
        1,
        ge=1,
        le=64,
        description="llama_cpp, transformers: GPUs for the model, where there are any",
    )
    server: ServerAddress = Field(
        "http://localhost:8000/v1", description="openai: address of the server, up to /v1"
    )
    api_key_variable: str = Field(
        "DIDGEN_API_KEY",
        pattern=r"^[A-Za-z_]\w*$",
        description="openai: environment variable that holds the key, if the server wants one",
    )
    answer_format: AnswerFormat = Field(
        "json_schema",
        description="openai: how the server learns the schema: `json_schema` (OpenAI, vLLM, "
        "llama-server, Ollama), `json_object` (llama-cpp-python), `text`: in words only",
    )
    concurrency: int = Field(8, ge=1, le=512, description="openai: requests in flight")
    image_side: int = Field(
        512, ge=64, le=2048, description="longer side of what a model sees, px; never enlarged"
    )
    sentence: Literal["vocabulary", "model"] = Field(
        "vocabulary",
        description="`vocabulary`: the sentence is made from the attributes, alike for all "
        "captioners; `model`: the model words it",
    )
    text_model: Place | None = Field(
        None,
        description="llama_cpp, openai: another model that words the sentences; null: the same",
    )
    reserved_words: ReservedWords = Field(
        "replace",
        description='what becomes of "lesion" and "skin" in a model\'s sentence: other words, the '
        "placeholder tokens (as in the released code), or an error",
    )
    retries: int = Field(
        1, ge=0, le=10, description="further tries after a crash, or an answer against the schema"
    )
    timeout: float = Field(
        600,
        gt=0,
        le=86400,
        description="seconds for an answer, then it has failed; openai: with all tries",
    )
    max_failed: float = Field(
        0.05,
        ge=0,
        le=1,
        description="share of images that may fail; they get measured attributes, and are counted",
    )
    cache: Place | None = Field(
        None, description="folder that keeps all answers, also between runs; null: in the run"
    )

    @model_validator(mode="after")
    def _a_model_that_can_be_had(self) -> Self:
        if self.captioner == "measure" and self.sentence == "model":
            raise ValueError("sentence: found model, but captioner: measure has none")
        if self.captioner == "openai" and not self.model:
            raise ValueError("model: openai needs the name under which the server has the model")
        if self.captioner == "llama_cpp" and (self.model is None) != (self.mmproj is None):
            raise ValueError(
                "model and mmproj belong together: give both files, or neither for the default"
            )
        if self.captioner == "transformers" and self.text_model:
            raise ValueError("text_model: transformers words sentences with `model` alone")
        return self


class Config(Settings):
    """Settings and paths of the stage."""

    train: Path = Field(description="manifest of training images")
    val: Path = Field(description="manifest of validation images")
    test: Path = Field(description="manifest of test images")
    backbone: Place = Field(
        description="`tiny`, a diffusers folder or a hub id: its tokenizer sets the length limit"
    )
    revision: str | None = Field(None, description="hub revision of the backbone; null: newest")
    state: Path | None = Field(
        None, description="folder of a model's answers, unless `cache` names one; null: in `out`"
    )
    out: Path = Field(description="folder to write: captions.csv, measured.csv and figures")
