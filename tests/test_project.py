"""What describes the project in several files says the same in each."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import didgen

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CI = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
# Where a command of installation may stand.
TEXTS = ("*.md", "docs/*.md", "config/*.*", "envs/*", "didgen/**/*.py", "rules/*.smk")


def test_one_version_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest and didgen.__version__ == citation["version"] == newest[1]


def test_continuous_integration_runs_each_supported_python() -> None:
    tested = CI["jobs"]["test"]["strategy"]["matrix"]["python"]
    stated = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert tested == stated and len(tested) >= 3
    assert all(Version(version) in SpecifierSet(PROJECT["requires-python"]) for version in tested)
    assert ".ci/run" in [step.get("run") for step in CI["jobs"]["test"]["steps"]]


def test_hooks_run_what_lint_runs() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    entries = [hook["entry"] for repo in hooks["repos"] for hook in repo["hooks"]]
    recipe = (ROOT / "Makefile").read_text()
    for tool in ("ruff check", "ruff format", "snakefmt"):
        assert any(f"/{tool}" in entry for entry in entries)
        assert f"$(BIN)/{tool}" in recipe


def test_nothing_is_installed_as_if_it_were_on_pypi() -> None:
    by_name = re.compile(r"pip3? install [^\n]*(?<![\w./-])didgen(?![\w./-])")
    assert by_name.search("pip install 'didgen[llm]'")
    assert not by_name.search("pip install 'dist/didgen-0.2.0-py3-none-any.whl[llm]'")
    texts = [path for pattern in TEXTS for path in ROOT.glob(pattern)]
    assert len(texts) > 100
    assert not [str(path) for path in texts if by_name.search(path.read_text(encoding="utf-8"))]


def test_the_files_that_contributors_are_sent_to_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = {name for name in re.findall(r"`([\w./-]+)`", text) if "/" in name[:-1]}
    named |= set(re.findall(r"\]\(([\w./-]+)\)", text))
    assert len(named) > 30
    assert not [name for name in named if not (ROOT / name).exists()]


@pytest.mark.parametrize("name", ["architecture.md", "method.md"])
def test_the_code_that_a_document_names_exists(name: str) -> None:
    """Files of the package, and after a colon what they define: `cli.py: STAGES`."""
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    places = re.findall(r"`(cli\.py|\w+/[\w/]+\.py)(?:: ([\w.]+))?`", text)
    assert len(places) > 10
    for file, wanted in places:
        path = next((b / file for b in (ROOT / "didgen", ROOT) if (b / file).is_file()), None)
        assert path, f"{name} names {file}, which does not exist"
        defined = set()
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                defined.add(node.name)
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                defined |= {ast.unparse(target) for target in targets}
        assert not wanted or wanted.split(".")[0] in defined, f"{name} names {file}: {wanted}"


def test_the_architecture_is_short_and_linked() -> None:
    assert len((ROOT / "docs" / "architecture.md").read_text().splitlines()) <= 150
    for name in ("README.md", "CONTRIBUTING.md"):
        assert "(docs/architecture.md)" in (ROOT / name).read_text()
