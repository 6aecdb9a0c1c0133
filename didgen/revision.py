"""The revision of a stage's code: a digest of all of the package that the stage can reach.

Of the standard library alone, so that any launcher of the workflow can import it.
"""

import ast
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent


def revision(stage: str, package: Path = PACKAGE) -> str:
    """Digest of what a stage runs: its module and every module of the package that it imports.

    Imports inside functions and modules loaded by name count; comments, layout and docstrings do
    not. 12 hexadecimal digits. Files of data inside the package, and the command line above all
    stages, are not looked at.

    Raises: ValueError when there is no such stage.
    """
    start = package / "stages" / f"{stage.replace('-', '_')}.py"
    if not start.is_file():
        raise ValueError(f"no stage named {stage!r}: expected the file {start}")
    seen: dict[Path, str] = {}
    waiting = [start]
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen[path], names = _read(path)
            waiting += [file for name in names for file in _files(name, package)]
    listing = "\n".join(f"{path.relative_to(package)} {seen[path]}" for path in sorted(seen))
    return hashlib.sha256(listing.encode()).hexdigest()[:12]


def _files(name: str, package: Path) -> Iterator[Path]:
    """The files that importing a name runs: its module's, and those of the packages above.

    The name of an attribute, "didgen.runtime.files.write_text", stands for its module.
    """
    place = package
    for part in name.split(".")[1:]:
        place = place / part
        yield from (f for f in (place.with_suffix(".py"), place / "__init__.py") if f.is_file())


@functools.cache
def _read(path: Path) -> tuple[str, tuple[str, ...]]:
    """Digest of a file's code, and the names inside this package that it imports or mentions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            if ast.get_docstring(node, clean=False) is not None:
                node.body.pop(0)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # "didgen.room.module:attribute": loaded by name.
            names.add(node.value.partition(":")[0])
    own = sorted(name for name in names if name.startswith("didgen."))
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), tuple(own)
