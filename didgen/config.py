"""The run configuration: one section a stage, cross-checked; source of schema and reference."""

import json
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, model_validator
from pydantic.fields import FieldInfo

from didgen.data.settings import Section
from didgen.stages import (
    augment,
    caption,
    classify,
    finetune,
    images,
    maps,
    pairs,
    prepare,
    report,
    segment,
    verdict,
)


class RunConfig(Section):
    """Everything that defines a run. A section left out has its defaults."""

    run: str = Field(
        "demo", pattern=r"^[\w.-]+$", description="name of the run: results go to results/<run>/"
    )
    seed: int = Field(0, ge=0, description="seed of everything that is drawn")
    mirror: str | None = Field(
        None, description="overrides data.mirror; meant for the command line: --config mirror=DIR"
    )
    seeds: tuple[int, ...] = Field(
        (0, 1), min_length=1, description="seeds of the downstream trainings, the same in every arm"
    )
    shards: int = Field(1, ge=1, le=1000, description="parallel jobs for `images` and for `pairs`")
    data: prepare.Settings = Field(prepare.Settings(), description="source, size and splits")
    caption: caption.Settings = Field(caption.Settings(), description="DermPrompt captions")
    finetune: finetune.Settings = Field(finetune.Settings(), description="the one fine-tuning")
    images: images.Settings = Field(images.Settings(), description="class-conditional images")
    pairs: pairs.Settings = Field(pairs.Settings(), description="lesion-mask pairs")
    augment: augment.Settings = Field(augment.Settings(), description="the augmented set")
    maps: maps.Settings = Field(maps.Settings(), description="attention maps of held-out images")
    classify: classify.Settings = Field(classify.Settings(), description="the classifier")
    segment: segment.Settings = Field(segment.Settings(), description="the segmenter")
    verdict: verdict.Settings = Field(verdict.Settings(), description="statistics and thresholds")
    report: report.Settings = Field(report.Settings(), description="the report page")

    @model_validator(mode="before")
    @classmethod
    def _mirror_reaches_the_data(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("mirror"):
            data = values.get("data") or {}
            if isinstance(data, dict):
                return {**values, "data": {**data, "mirror": values["mirror"]}}
        return values

    @model_validator(mode="after")
    def _sections_agree(self) -> "RunConfig":
        for name, chosen in (("finetune", self.finetune.classes), ("images", self.images.classes)):
            absent = sorted(set(chosen or ()) - set(self.data.classes))
            if absent:
                raise ValueError(
                    f"{name}.classes: found {absent}, which data.classes leaves out; allowed are "
                    f"{list(self.data.classes)}"
                )
        untrained = set(self.images.classes or ()) - set(self.finetune.classes or self.data.classes)
        if untrained:
            raise ValueError(
                f"images.classes: found {sorted(untrained)}, which finetune.classes leaves out; "
                "the backbone would be asked for diagnoses that it never saw"
            )
        if self.finetune.backbone == "tiny" and self.data.size != 128:
            raise ValueError(
                f"data.size: found {self.data.size}, but finetune.backbone: tiny works at 128 px; "
                "set data.size: 128 or choose another backbone"
            )
        if self.images.per_class == 0 and self.pairs.count == 0:
            raise ValueError(
                "images.per_class and pairs.count are both 0: nothing would be synthesized; "
                "raise one of them"
            )
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: found {list(self.seeds)}, expected different numbers")
        return self


def json_schema_text() -> str:
    """The JSON schema of a run configuration, without references, as text."""
    schema = RunConfig.model_json_schema()
    definitions = schema.pop("$defs", {})
    schema = _inline(schema, definitions)
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return json.dumps(schema, indent=2) + "\n"


def _inline(node: Any, definitions: dict) -> Any:
    if isinstance(node, list):
        return [_inline(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target = definitions[node["$ref"].rsplit("/", 1)[-1]]
        node = {**target, **{key: value for key, value in node.items() if key != "$ref"}}
    return {key: _inline(value, definitions) for key, value in node.items()}


def key_reference() -> str:
    """The text of config/README.md: every key with meaning, default and what is allowed."""
    lines = [
        "# Configuration",
        "",
        "Every key of a run, made from the settings models by `python -m didgen schema`; edit the",
        "models, not this file. A key left out has its default. Unknown keys are refused.",
        "",
        "| file | what it runs |",
        "| --- | --- |",
        "| `config.yaml` | the demo: phantoms, the tiny backbone, minutes on a laptop |",
        "| `isic2018.yaml` | the paper's set-up: ISIC 2018, Stable Diffusion 2.1-base, 512 px |",
        "| `isic2018-mini.yaml` | real ISIC images at 128 px on a CPU |",
        "| `smoke.yaml` | every stage at its smallest, for tests; its numbers mean nothing |",
    ]
    scalars, sections = [], []
    for name, field in RunConfig.model_fields.items():
        is_section = isinstance(field.annotation, type) and issubclass(field.annotation, Section)
        (sections if is_section else scalars).append((name, field))
    lines += ["", "## Top level", "", *_table(scalars)]
    for name, field in sections:
        lines += ["", f"## `{name}`", "", f"{_sentence(field.description)}"]
        fields = list(field.annotation.model_fields.items())
        lines += ["", *_table(fields)] if fields else ["", "No keys."]
    return "\n".join(lines) + "\n"


def _sentence(text: str | None) -> str:
    text = text or ""
    return text[:1].upper() + text[1:] + "."


def _table(fields: list[tuple[str, FieldInfo]]) -> list[str]:
    rows = ["| key | default | allowed | meaning |", "| --- | --- | --- | --- |"]
    for name, field in fields:
        cells = (f"`{name}`", f"`{_plain(field.get_default())}`", _allowed(field))
        meaning = (field.description or "").replace("|", "\\|")
        rows.append(f"| {' | '.join(cells)} | {meaning} |")
    return rows


def _plain(value: Any) -> str:
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def _allowed(field: FieldInfo) -> str:
    """What a key accepts, in words: its type or choices, and its bounds."""
    kind = TypeAdapter(Annotated[field.annotation, *field.metadata]).json_schema()
    return _words(kind).replace("|", "\\|")


def _words(kind: dict) -> str:
    if "anyOf" in kind:
        return " or ".join(_words(option) for option in kind["anyOf"])
    if "enum" in kind:
        return ", ".join(f"`{value}`" for value in kind["enum"])
    if "const" in kind:
        return f"`{kind['const']}`"
    if kind.get("type") == "array":
        return f"list of {_words(kind.get('items', {}))}"
    words = kind.get("type", "any")
    bounds = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    limits = [f"{sign} {kind[key]:g}" for key, sign in bounds.items() if key in kind]
    if "multipleOf" in kind:
        limits.append(f"multiple of {kind['multipleOf']:g}")
    return " ".join([words, ", ".join(limits)]).strip()
