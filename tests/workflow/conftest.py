"""Launching snakemake as users do, and a working copy whose stages only check their flags."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
Done = subprocess.CompletedProcess


def _run(
    command: list[str], directory: Path, timeout: float = 300, packages: Path | None = None
) -> Done:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if packages:
        environment["PYTHONPATH"] = str(packages)
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=directory,
        env=environment | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )


def _snakemake(directory: Path, *flags: str, timeout: float = 300) -> Done:
    own = directory / "workflow" / "Snakefile"
    snakefile = own if own.exists() else ROOT / "workflow" / "Snakefile"
    command = ["snakemake", "--snakefile", str(snakefile), "--cores", "2", *flags]
    return _run(command, directory, timeout)


@pytest.fixture(scope="session")
def module() -> Callable[..., Done]:
    """Run a module of this interpreter in a directory, with a folder of packages or none as
    PYTHONPATH."""
    return _run


@pytest.fixture(scope="session")
def snakemake() -> Callable[..., Done]:
    """Run snakemake in a directory, on its own workflow or else on this checkout's."""
    return _snakemake


@pytest.fixture(scope="session")
def jobs() -> Callable[[str], dict[str, int]]:
    """Read snakemake's table of jobs: rule -> how many."""

    def read(output: str) -> dict[str, int]:
        table = re.search(r"^job +count\n[- ]+\n(.*?)^total", output, re.MULTILINE | re.DOTALL)
        lines = table.group(1).splitlines() if table else []
        return {line.split()[0]: int(line.split()[1]) for line in lines}

    return read


def _fill(copy: Path) -> None:
    left_out = shutil.ignore_patterns("__pycache__", "weights")
    copy.mkdir(exist_ok=True)
    for folder in ("workflow", "rules", "envs", "didgen"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=left_out)
    shutil.copy(ROOT / "tests" / "workflow" / "stub.py", copy / "didgen" / "__main__.py")
    (copy / "config").mkdir()
    shutil.copy(ROOT / "config" / "smoke.yaml", copy / "config" / "config.yaml")


@pytest.fixture(scope="session")
def fill() -> Callable[[Path], None]:
    """Make a folder a working copy with stub stages, and `config.yaml` = the smallest one."""
    return _fill


@pytest.fixture
def unfinished(tmp_path: Path) -> Path:
    """A working copy with stub stages in which nothing was run."""
    _fill(tmp_path)
    return tmp_path


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder of packages with a working copy in it as a wheel lays it out."""
    packages = tmp_path / "packages"
    _fill(packages)
    home = packages / "didgen" / "_workflow"
    home.mkdir()
    for name in ("workflow", "rules", "envs", "config"):
        (packages / name).rename(home / name)
    return packages


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working copy with stub stages, after a whole run of `config.yaml` = the smallest one."""
    copy = tmp_path_factory.mktemp("finished")
    _fill(copy)
    done = _snakemake(copy)
    assert done.returncode == 0, done.stdout
    assert "They help." in done.stdout, "the verdict is printed at the end"
    return copy
