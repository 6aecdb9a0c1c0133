"""JSON schemas as grammars (GBNF) that allow exactly one way of writing each value.

llama.cpp reads this notation itself, and for transformers llguidance does. llama.cpp ends the whole
process on a grammar that it cannot parse, and its own converter lets raw control characters into
strings, ignores bounds and silently falls back to any JSON. This one knows few keywords and
refuses all others.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

# Written with a space after each comma and colon, as `json.dumps` does.
ITEM_SEPARATOR, KEY_SEPARATOR = ", ", ": "
# llama.cpp unrolls repetitions; some thousands of them end the process.
MAX_LENGTH = 1000
MAX_ITEMS = 32
# Printable ASCII without the quotation mark and the backslash: nothing needs escaping.
STRING_CHARACTERS = r"[ !#-\[\]-~]"
_PLAIN = re.compile(r"[ !#-\[\]-~]*")
_ANNOTATIONS = {"title", "description", "default", "examples", "$defs"}
_KEYWORDS = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "minItems", "maxItems"},
    "string": {"minLength", "maxLength"},
    "boolean": set(),
    "null": set(),
}


class SchemaError(ValueError):
    """A JSON schema that cannot be made into a grammar without losing a part of it."""


def to_gbnf(schema: Mapping[str, Any]) -> str:
    """The grammar of exactly the JSON texts that follow the schema.

    Objects have all their keys, in the schema's order. Keywords: type (object, array, string,
    boolean, null), properties, required, additionalProperties, items, minItems, maxItems,
    minLength, maxLength, enum, const, anyOf and $ref into $defs. Raises: `SchemaError`.
    """
    return f"root ::= {_rule(schema, schema, '$')}\n"


def _rule(node: Mapping[str, Any], top: Mapping[str, Any], path: str) -> str:
    node = _resolve(node, top, path)
    if "anyOf" in node:
        _only(node, {"anyOf"}, path)
        return _either([_rule(one, top, f"{path}.anyOf") for one in node["anyOf"]], path)
    if "enum" in node or "const" in node:
        _only(node, {"enum", "const", "type"}, path)
        values = node["enum"] if "enum" in node else [node["const"]]
        return _either([_literal(json.dumps(value), path) for value in values], path)
    kind = node.get("type")
    if kind not in _KEYWORDS:
        raise SchemaError(
            f"{path}: found type {kind!r}, expected one of {', '.join(_KEYWORDS)}, or enum, const "
            "or anyOf; write numbers as an enum"
        )
    _only(node, _KEYWORDS[kind] | {"type"}, path)
    if kind == "object":
        return _object(node, top, path)
    if kind == "array":
        return _array(node, top, path)
    if kind == "string":
        low, high = _bounds(node, "minLength", "maxLength", MAX_LENGTH, path)
        return rf'"\"" {STRING_CHARACTERS}{{{low},{high}}} "\""'
    return '("true" | "false")' if kind == "boolean" else '"null"'


def _object(node: Mapping[str, Any], top: Mapping[str, Any], path: str) -> str:
    properties = node.get("properties", {})
    if not properties or set(node.get("required", ())) != set(properties):
        raise SchemaError(f"{path}: expected an object whose keys are all required")
    parts = []
    for name, value in properties.items():
        before = "{" if not parts else ITEM_SEPARATOR
        parts.append(_literal(f"{before}{json.dumps(name)}{KEY_SEPARATOR}", path))
        parts.append(_rule(value, top, f"{path}.{name}"))
    return " ".join([*parts, '"}"'])


def _array(node: Mapping[str, Any], top: Mapping[str, Any], path: str) -> str:
    low, high = _bounds(node, "minItems", "maxItems", MAX_ITEMS, path)
    if not high:
        return '"[]"'
    item = f"({_rule(node.get('items', {}), top, f'{path}[]')})"
    more = f'("{ITEM_SEPARATOR}" {item}){{{max(0, low - 1)},{high - 1}}}' if high > 1 else ""
    filled = f"{item} {more}".rstrip()
    return f'"[" {filled} "]"' if low else f'"[" ({filled})? "]"'


def _resolve(node: Mapping[str, Any], top: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    for _ in range(16):
        if "$ref" not in node:
            return node
        name = node["$ref"].removeprefix("#/$defs/")
        if name not in top.get("$defs", {}):
            raise SchemaError(f"{path}: found $ref {node['$ref']!r}, which $defs does not hold")
        node = top["$defs"][name]
    raise SchemaError(f"{path}: $ref leads in a circle")


def _only(node: Mapping[str, Any], allowed: set[str], path: str) -> None:
    unknown = sorted(set(node) - allowed - _ANNOTATIONS)
    if unknown:
        raise SchemaError(f"{path}: found {', '.join(unknown)}, which no grammar here can express")


def _bounds(node: Mapping[str, Any], low: str, high: str, limit: int, path: str) -> tuple[int, int]:
    least, most = node.get(low, 0), node.get(high)
    if most is None or not 0 <= least <= most <= limit:
        raise SchemaError(
            f"{path}: found {low} {least} and {high} {most}, expected {low} <= {high} <= {limit}"
        )
    return least, most


def _either(options: list[str], path: str) -> str:
    if not options:
        raise SchemaError(f"{path}: nothing to choose from")
    return f"({' | '.join(options)})"


def _literal(text: str, path: str) -> str:
    if not _PLAIN.fullmatch(text.replace('"', "")):
        raise SchemaError(
            f"{path}: found {text}, expected printable ASCII without quotation marks or backslashes"
        )
    return '"' + text.replace('"', '\\"') + '"'
