"""What counts as another revision of a stage."""

import subprocess
import sys
from pathlib import Path

import pytest

from didgen import revision as module
from didgen.cli import STAGES
from didgen.revision import PACKAGE, revision

STAGE = '''"""A stage."""
from didgen.runtime import files


def run(config):
    """Run."""
    from didgen.metrics.masks import dice
    return load("didgen.methods.ours:Ours")
'''


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package with one stage, what it reaches in three ways, and one module that it does not."""
    sources = {
        "stages/paint.py": STAGE,
        "runtime/files.py": "from didgen.data.deep import X\n",
        "data/deep.py": "X = 1\n",
        "metrics/__init__.py": "",
        "metrics/masks.py": "def dice():\n    return 1\n",
        "methods/ours.py": "class Ours:\n    pass\n",
        "report/page.py": "PAGE = 1\n",
    }
    for name, text in sources.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def after(package: Path, name: str, text: str) -> str:
    """The revision after a file was written, as a new process would see it."""
    (package / name).write_text(text)
    module._read.cache_clear()
    return revision("paint", package)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("stages/paint.py", STAGE.replace("A stage", "The stage") + "# a comment\n"),
        ("stages/paint.py", STAGE.replace('"""Run."""', '"""Run it."""\n')),
        ("data/deep.py", "X  =  1  # one\n"),
        ("report/page.py", "PAGE = 2\n"),
    ],
)
def test_words_layout_and_other_modules_do_not_count(package: Path, name: str, text: str) -> None:
    before = revision("paint", package)
    assert after(package, name, text) == before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("stages/paint.py", STAGE.replace("return load", "return None or load")),
        ("data/deep.py", "X = 2\n"),
        ("metrics/masks.py", "def dice():\n    return 2\n"),
        ("metrics/__init__.py", "X = 1\n"),
        ("methods/ours.py", "class Ours:\n    x = 1\n"),
    ],
)
def test_code_that_the_stage_reaches_counts(package: Path, name: str, text: str) -> None:
    before = revision("paint", package)
    assert after(package, name, text) != before


def test_every_stage_has_a_revision_and_a_misspelt_one_is_named() -> None:
    found = {stage: revision(stage) for stage in STAGES}
    assert len(set(found.values())) == len(STAGES)
    assert revision("pretrain-tiny")
    with pytest.raises(ValueError, match="paint"):
        revision("paint")


def test_a_launcher_without_libraries_can_import_it() -> None:
    code = "import sys; sys.modules.update(dict.fromkeys(['pydantic', 'numpy', 'torch']))\n"
    code += "from didgen.revision import revision; print(revision('finetune'))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True
    )
    assert done.stdout.strip() == revision("finetune"), done.stderr
