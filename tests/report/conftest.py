"""Fixtures: a made-up run and its page."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

HOSTILE = (
    "<script>alert(1)</script> \"><img src=x onerror=alert(2)> '><svg onload=alert(3)> {{7*7}}"
)


@pytest.fixture(scope="session")
def hostile() -> str:
    """A caption that tries to leave its place in the page."""
    return HOSTILE


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run whose captions are hostile; not to be changed by a test."""
    from fake_run import make_run

    root = tmp_path_factory.mktemp("runs") / "demo"
    root.mkdir()
    return make_run(root, caption=HOSTILE)


@pytest.fixture()
def own_run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may damage."""
    import shutil

    return Path(shutil.copytree(finished_run, tmp_path / "demo"))


@pytest.fixture(scope="session")
def page(finished_run: Path) -> str:
    """The page of the complete run, as the stage writes it."""
    from didgen.stages.report import Config, run

    out = finished_run / "report" / "index.html"
    run(Config(run_dir=finished_run, out=out))
    return out.read_text(encoding="utf-8")
