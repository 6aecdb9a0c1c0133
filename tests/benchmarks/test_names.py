"""Every benchmark can be imported, and the names of the package that it uses are there."""

import ast
import importlib
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.py")))
def test_names_that_a_benchmark_takes_from_modules_exist(name: str) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    for node in ast.walk(ast.parse((FOLDER / f"{name}.py").read_text())):
        if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
            continue
        owner = getattr(module, node.value.id, None)
        if isinstance(owner, ModuleType) and owner.__name__.startswith("didgen"):
            assert hasattr(owner, node.attr), f"line {node.lineno}: {owner.__name__}.{node.attr}"
