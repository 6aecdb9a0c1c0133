"""A configuration file as YAML: what its reader would pass over, or name badly, is an error."""

from pathlib import Path

import yaml


def check_configfile(path: Path | str) -> None:
    """Read a configuration file as far as its text goes; its keys are checked by `RunConfig`.

    Raises: ValueError where it is missing, is no UTF-8 or no YAML, has other than keys at its top,
    or a key twice, of which YAML would keep the last; the message says in which line.
    """
    try:
        node = yaml.compose(Path(path).read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise ValueError(
            f"{path}: found no configuration that can be read ({error.strerror})"
        ) from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: found other text than UTF-8 ({error}); save it as UTF-8"
        ) from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: found no valid YAML: {error}") from None
    if not isinstance(node, yaml.MappingNode) or not node.value:
        raise ValueError(f"{path}: found no keys, expected lines such as `run: first`")
    # An alias stands for its anchor's node, which is looked at once.
    waiting, seen = [("", node)], set()
    while waiting:
        above, node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += [(above, item) for item in node.value]
        if not isinstance(node, yaml.MappingNode):
            continue
        lines: dict[str, int] = {}
        for key, value in node.value:
            name, line = f"{above}{key.value}", key.start_mark.line + 1
            if name in lines:
                raise ValueError(
                    f"{path}: found {name} twice, in lines {lines[name]} and {line}, expected it "
                    "once; join the two"
                )
            lines[name] = line
            waiting.append((f"{name}.", value))
