"""Write the JSON schema and config/README.md from the settings models, or check them for drift."""

import json
from typing import Any

from didgen.runtime.files import write_text
from didgen.runtime.outputs import check_output_file
from didgen.settings.run import RunConfig
from didgen.settings.schema import Config

HEADING = """# Configuration

Every key of a run, made from the settings models by `python -m didgen schema`;"""


def run(config: Config) -> None:
    """Write both files.

    Raises: `OutputError` where one would take the place of something else; `ValueError` with
    `check` when one differs from the models.
    """
    files = (
        (config.schema_file, json_schema_text(), "such a schema", _is_schema),
        (config.readme, key_reference(), "such a reference", lambda text: text.startswith(HEADING)),
    )
    for path, text, expected, is_earlier in files:
        check_output_file(path, expected, is_earlier)
        if config.check and (not path.is_file() or path.read_text(encoding="utf-8") != text):
            raise ValueError(f"{path} is out of date; run: python -m didgen schema")
    if config.check:
        return
    for path, text, *_ in files:
        write_text(path, text)


def _is_schema(text: str) -> bool:
    schema = json.loads(text)
    return (schema["title"], "$schema" in schema) == (RunConfig.__name__, True)


def json_schema_text() -> str:
    """The JSON schema of a run configuration, without references, as text."""
    schema = _schema()
    # Snakemake fills in what has a default: methods that nobody chose, and a preset's keys.
    methods = schema["properties"]["methods"]["properties"]
    for name in methods:
        methods[name] = _chosen(methods[name])
        for key in methods[name]["properties"].values():
            key.pop("default", None)
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return json.dumps(schema, indent=2) + "\n"


def _schema() -> dict[str, Any]:
    schema = RunConfig.model_json_schema()
    definitions = schema.pop("$defs", {})
    return _inline(schema, definitions)


def _chosen(node: dict) -> dict:
    """A section that may be null, as it is where it is not."""
    (section,) = (option for option in node["anyOf"] if option.get("type") != "null")
    return section | {"description": node["description"]}


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
        f"{HEADING} edit the",
        "models, not this file. A key left out has its default. Unknown keys are refused.",
        "",
        "| file | what it runs |",
        "| --- | --- |",
        "| `config.yaml` | the demo: phantoms, the tiny backbone, minutes on a laptop |",
        "| `isic2018.yaml` | the paper's set-up: ISIC 2018, Stable Diffusion 2.1-base, 512 px |",
        "| `isic2018-mini.yaml` | real ISIC images at 128 px on a CPU |",
        "| `smoke.yaml` | every stage at its smallest, for tests; its numbers mean nothing |",
    ]
    properties = _schema()["properties"]
    sections = {name: node for name, node in properties.items() if node.get("type") == "object"}
    scalars = {name: node for name, node in properties.items() if name not in sections}
    lines += ["", "## Top level", "", *_table(scalars)]
    for name, node in sections.items():
        text = node["description"]
        lines += ["", f"## `{name}`", "", f"{text[0].upper()}{text[1:]}."]
        if name == "methods":
            for method, each in node["properties"].items():
                keys, text = _chosen(each).get("properties", {}), each["description"]
                text = f"{text[0].upper()}{text[1:]}."
                lines += ["", f"### `methods.{method}`", "", text]
                lines += ["", *_table(keys)] if keys else ["", "No keys."]
            continue
        # Of a mapping from names: what each named entry holds.
        entry = node.get("additionalProperties") or {}
        keys = node.get("properties") or entry.get("properties", {})
        lines += ["", *_table(keys)] if keys else ["", "No keys."]
        for key, own in keys.items():
            if inner := own.get("items", {}).get("properties"):
                lines += ["", f"### `{name}.{key}`", "", "Keys of each:", "", *_table(inner)]
    return "\n".join(lines) + "\n"


def _table(properties: dict[str, dict]) -> list[str]:
    rows = ["| key | default | allowed | meaning |", "| --- | --- | --- | --- |"]
    for name, node in properties.items():
        cells = (name, json.dumps(node.get("default")))
        escaped = (text.replace("|", "\\|") for text in (_words(node), node["description"]))
        rows.append(" | ".join([f"| `{cells[0]}`", f"`{cells[1]}`", *escaped]) + " |")
    return rows


def _words(kind: dict) -> str:
    """What a key accepts, in words: its type or choices, and its bounds."""
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
    limits = [f"{sign} {_plain(kind[key])}" for key, sign in bounds.items() if key in kind]
    if "multipleOf" in kind:
        limits.append(f"multiple of {kind['multipleOf']:g}")
    return " ".join([words, ", ".join(limits)]).strip()


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else f"{number:g}"
