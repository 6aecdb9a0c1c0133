"""The configuration file as written, before YAML loses a part of it.

Of PyYAML and the standard library alone, which come with Snakemake.
"""

import json
import re
from pathlib import Path
from typing import Any

import yaml

LARGEST = 10_000_000  # bytes
MOST = 100_000  # values


class ConfigFileError(ValueError):
    """The file cannot be read, or not everything in it would count; the message says where."""


def read_config_file(path: Path) -> dict[str, Any]:
    """The configuration in a YAML or JSON file, whose keys all stand once.

    Raises: ConfigFileError.
    """
    text = _text(path)
    try:
        try:
            values = json.loads(text)
            # JSON may be indented by tabs, which YAML does not allow.
            text = text.replace("\t", " ")
        except json.JSONDecodeError:
            values = None
        _check(yaml.compose(text, Loader=yaml.SafeLoader), path, {})
        values = yaml.safe_load(text) if values is None else values
    except ConfigFileError:
        raise
    except RecursionError:
        raise ConfigFileError(f"{path}: nested too deeply to be a configuration") from None
    except yaml.YAMLError as error:
        # Without the lines that the error's own text repeats: a secret may stand there.
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else path
        problem = getattr(error, "problem", None) or "characters that no file may have"
        raise ConfigFileError(
            f"{where}: neither YAML nor JSON ({problem}); indent by spaces, and put texts with "
            "special characters into quotes"
        ) from None
    except ValueError as error:
        raise ConfigFileError(f"{path}: a number in it cannot be read ({error})") from None
    if not isinstance(values, dict):
        kind = "nothing" if values is None else f"a {type(values).__name__}"
        raise ConfigFileError(f"{path}: found {kind}, expected keys such as `run: demo`")
    return values


def _text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            # Bounded, since a device has no end.
            content = stream.read(LARGEST + 1)
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigFileError(
            f"{path}: not UTF-8 (byte {error.start}: {error.reason}); save it as UTF-8, which some "
            "editors call UTF-8 without BOM"
        ) from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigFileError(f"{path}: cannot be read ({why})") from None
    if len(content) > LARGEST:
        raise ConfigFileError(f"{path}: too large for a configuration, {LARGEST} bytes at most")
    return text


def _check(node: yaml.Node | None, path: Path, sizes: dict[int, int]) -> int:
    """The number of nodes below and with this one; `sizes` has those of nodes by identity.

    Raises: ConfigFileError where a key stands twice in a section, or references make it endless.
    """
    line = 0 if node is None else node.start_mark.line + 1
    if id(node) in sizes:
        # Counted anew for each reference to it; 0: the node is being counted, so it holds itself.
        if not sizes[id(node)]:
            raise ConfigFileError(f"{path}:{line}: a section that holds itself")
        return sizes[id(node)]
    sizes[id(node)], size = 0, 1
    if isinstance(node, yaml.SequenceNode):
        size += sum(_check(item, path, sizes) for item in node.value)
    elif isinstance(node, yaml.ScalarNode):
        _check_plain(node, f"{path}:{line}")
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            here = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode):
                _check_plain(key, f"{path}:{here}", a_word=True)
                if key.value in lines:
                    raise ConfigFileError(
                        f"{path}:{here}: `{key.value}` stands there and in line "
                        f"{lines[key.value]}, and only one would count; make them one"
                    )
                lines[key.value] = here
            size += _check(value, path, sizes)
    if size > MOST:
        raise ConfigFileError(f"{path}:{line}: references make more than {MOST} values of it")
    sizes[id(node)] = size
    return size


def _check_plain(node: yaml.ScalarNode, place: str, a_word: bool = False) -> None:
    """Raises: ConfigFileError for what YAML reads as another number than it looks, or as a date.

    a_word: where a number is taken for the text that it is written as.
    """
    kind = node.tag.rpartition(":")[2]
    if kind == "timestamp":
        read = "a date"
    elif kind in ("int", "float") and ":" in node.value:
        read = "a number in base 60"
    elif kind == "int" and re.match(r"[-+]?0[0-7_]", node.value):
        read = "a number in base 8"
    elif a_word and kind == "int" and str(int(node.value, 0)) != node.value:
        read = f"the number {int(node.value, 0)}"
    else:
        return
    raise ConfigFileError(
        f"{place}: found {node.value}, which YAML reads as {read}; put quotes around a text, and "
        "write a number in plain decimal digits"
    )


def parse_json(text: str) -> Any:
    """A value of JSON, of whose objects all keys stand once. Raises: ConfigFileError."""
    try:
        return json.loads(text, object_pairs_hook=_each_once)
    except ConfigFileError:
        raise
    except (ValueError, RecursionError) as error:
        raise ConfigFileError(f"not JSON ({error})") from None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ConfigFileError(f"`{key}` stands twice, and only one would count; make them one")
        values[key] = value
    return values
