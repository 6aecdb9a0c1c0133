"""Conda environments: complete for the stages that run in them, activated as rules expect."""

import ast
import functools
import os
import re
import shutil
import stat
import sys
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = sorted(path.name for path in (ROOT / "envs").glob("*.yaml"))
# `weights` names the files of a captioner's models; it does not open them.
OPTIONAL = {"llama-cpp-python", "llguidance"}


def content(name: str) -> dict:
    return yaml.safe_load((ROOT / "envs" / name).read_text())


def pip_requirements(name: str) -> list[Requirement]:
    entries = [entry for entry in content(name)["dependencies"] if isinstance(entry, dict)]
    return [Requirement(text) for entry in entries for text in entry["pip"]]


def stages() -> dict[str, set[str]]:
    """The stages that rules run, by the environment of the rule."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "rules").glob("*.smk"):
        for block in re.split(r"^(?:rule|checkpoint) ", path.read_text(), flags=re.MULTILINE)[1:]:
            environment = re.search(r'envs/([\w-]+\.yaml)"', block)
            stage = re.search(r"-m didgen ([\w-]+)", block)
            if environment and stage:
                found.setdefault(environment[1], set()).add(stage[1].replace("-", "_"))
    return found


@functools.cache
def imports(path: Path) -> frozenset[str]:
    """All names that a file imports, also inside functions, but not for type checkers alone."""
    tree = ast.parse(path.read_text())
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def reachable(stage: str) -> set[str]:
    """Third-party modules that a stage may import, through all of the package that it and the
    command line reach, but for `didgen run`, which starts the workflow itself."""
    seen = {ROOT / "didgen" / "launcher.py"}
    waiting = [ROOT / "didgen" / "stages" / f"{stage}.py", ROOT / "didgen" / "cli.py"]
    foreign: set[str] = set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for name in imports(path):
            if name.split(".")[0] != "didgen":
                foreign.add(name.split(".")[0])
                continue
            place = ROOT.joinpath(*name.split("."))
            waiting += [p for p in (place.with_suffix(".py"), place / "__init__.py") if p.is_file()]
    return foreign - set(sys.stdlib_module_names)


@functools.cache
def brings(name: str) -> frozenset[str]:
    """A distribution and all that it requires, without extras."""
    found, waiting = set(), [canonicalize_name(name)]
    while waiting:
        current = waiting.pop()
        if current in found:
            continue
        found.add(current)
        needed = [Requirement(text) for text in distribution(current).requires or ()]
        waiting += [
            canonicalize_name(r.name)
            for r in needed
            if not r.marker or r.marker.evaluate({"extra": ""})
        ]
    return frozenset(found)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_an_environment_can_be_made_anywhere(name: str) -> None:
    found = content(name)
    assert set(found) == {"channels", "dependencies"}
    # `nodefaults`: Anaconda's own channel asks for a licence in larger organisations.
    assert found["channels"] == ["conda-forge", "nodefaults"]
    plain = [entry for entry in found["dependencies"] if isinstance(entry, str)]
    assert "python=3.11" in plain and "pip" in plain
    assert all(len(r.specifier) == 1 and str(r.specifier).startswith("==") for r in
               pip_requirements(name))  # fmt: skip


def test_the_cuda_build_is_the_one_that_torch_wants() -> None:
    pins = {
        canonicalize_name(r.name): str(r.specifier) for r in pip_requirements("generation.yaml")
    }
    wanted = [Requirement(text) for text in distribution("torch").requires or ()]
    cuda = {canonicalize_name(r.name): str(r.specifier) for r in wanted}
    if "cuda-toolkit" not in cuda:
        pytest.skip("torch is a build without CUDA here")
    for name in ("cuda-toolkit", "nvidia-cudnn-cu13"):
        assert pins[name] == cuda[name]


@pytest.mark.parametrize("name", [name for name in ENVIRONMENTS if name in stages()])
def test_an_environment_has_what_its_stages_import(name: str) -> None:
    owners = packages_distributions()
    there = {pin for r in pip_requirements(name) for pin in brings_if_here(r.name)}
    lacking = {}
    for stage in sorted(stages()[name]):
        for module in reachable(stage):
            names = {
                canonicalize_name(owner)
                for owner in owners.get(module, [module, f"{module}-python"])
            }
            if not names & (there | OPTIONAL):
                lacking.setdefault(module, []).append(stage)
    assert not lacking, f"{name} lacks what these stages import: {lacking}"


def brings_if_here(name: str) -> frozenset[str]:
    """As `brings`; what is not installed here, as the CUDA libraries, brings nothing else."""
    try:
        return brings(name)
    except ModuleNotFoundError:
        return frozenset({canonicalize_name(name)})


def test_container_recipes_copy_what_exists(tmp_path: Path) -> None:
    docker = re.findall(r"^COPY (.+) \S+$", (ROOT / "envs/Dockerfile").read_text(), re.MULTILINE)
    recipe = (ROOT / "envs" / "didgen.def").read_text()
    files = recipe.split("%files")[1].split("%post")[0]
    named = {word for line in docker for word in line.split()}
    named |= {line.split()[0] for line in files.splitlines() if line.strip()}
    assert {"constraints.txt", "pyproject.toml", "didgen/__init__.py"} <= named
    assert not [name for name in named if not (ROOT / name).exists()]


@pytest.mark.slow
def test_container_recipes_install_from_the_files_that_they_copy_first(
    tmp_path: Path, module
) -> None:
    """Their packages are installed before the workflow is there, which an edit would invalidate."""
    docker = (ROOT / "envs/Dockerfile").read_text().split("pip install")[0]
    for name in re.findall(r"^COPY (.+) \S+$", docker, re.MULTILINE)[0].split():
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "didgen").mkdir()
    shutil.copy(ROOT / "didgen" / "__init__.py", tmp_path / "didgen")
    folders = re.search(r"mkdir (.+?) *\\\n", docker)[1].split()
    assert f"mkdir -p {' '.join(folders)}\n" in (ROOT / "envs" / "didgen.def").read_text()
    for name in folders:
        (tmp_path / name).mkdir()
    done = module(["pip", "wheel", ".", "--no-deps", "--no-build-isolation"], tmp_path)
    assert done.returncode == 0, done.stdout


CONDA = """\
#!{python}
# Stands in for conda: answers what snakemake asks, and makes the environment as a venv that sees
# the packages of these tests. It reads no channel.
import pathlib, shutil, sys, venv
words = sys.argv[1:]
here = pathlib.Path(__file__).resolve().parents[1]
if words[:2] == ["info", "--json"]:
    print('{{"conda_version": "25.1.0", "platform": "linux-64", "conda_prefix": "%s", '
          '"root_prefix": "%s", "channels": [], "envs": [], "config_files": []}}' % (here, here))
elif words[:1] == ["--version"]:
    print("conda 25.1.0")
elif words[:1] == ["clean"]:
    pass
elif words[:1] == ["config"]:
    print('{{"get": {{"channel_priority": "strict"}}}}')
elif "create" in words:
    named = dict(zip(words, words[1:]))
    prefix = pathlib.Path(named.get("--prefix") or named["-p"])
    venv.create(prefix, with_pip=False, clear=True)
    packages = prefix / "lib" / "python{version}" / "site-packages"
    (packages / "tests.pth").write_text("{packages}\\n")
    shutil.copy(named.get("--file") or named["-f"], prefix / "asked.yaml")
else:
    sys.exit("not expected of conda: " + " ".join(words))
"""
ACTIVATE = """\
# As conda's own: the environment comes first, and PYTHONPATH of the caller is gone.
export PATH="$1/bin:$PATH" CONDA_PREFIX="$1"
unset PYTHONPATH
"""


@pytest.fixture
def conda(tmp_path: Path, monkeypatch) -> Path:
    """A folder as conda is installed in, first in PATH."""
    folder = tmp_path / "conda"
    (folder / "bin").mkdir(parents=True)
    program = folder / "bin" / "conda"
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    program.write_text(CONDA.format(python=sys.executable, version=version, packages=packages))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (folder / "bin" / "activate").write_text(ACTIVATE)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CONDA_EXE", str(program))
    return folder


def spoken(main: Path) -> None:
    """Let the stub stages say where they run."""
    told = 'print("runs in", sys.prefix, "with", __file__, "beside", sys.path)\n'
    main.write_text(main.read_text().replace("import sys\n", f"import sys\n{told}", 1))


@pytest.mark.slow
def test_a_stage_runs_in_its_environment_with_the_package_of_this_checkout(
    conda: Path, unfinished: Path, snakemake
) -> None:
    main = unfinished / "didgen" / "__main__.py"
    spoken(main)
    done = snakemake(unfinished, "data", "--sdm", "conda", timeout=500)
    assert done.returncode == 0, done.stdout[-4000:]
    (environment,) = (unfinished / ".snakemake" / "conda").glob("*_/asked.yaml")
    assert environment.read_text() == (ROOT / "envs" / "data.yaml").read_text()
    log = (unfinished / "results/smoke/logs/data.log").read_text()
    assert f"runs in {environment.parent} with {main}" in log


@pytest.mark.slow
def test_an_environment_sees_of_an_installation_the_package_alone(
    conda: Path, installed: Path, tmp_path: Path, module
) -> None:
    spoken(installed / "didgen" / "__main__.py")
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    command = ["didgen", "run", "data", "--sdm", "conda"]
    done = module(command, folder, timeout=500, packages=installed)
    assert done.returncode == 0, done.stdout[-4000:]
    (environment,) = (folder / ".snakemake" / "conda").glob("*_/asked.yaml")
    log = (folder / "results/smoke/logs/data.log").read_text()
    link = folder / ".snakemake" / "package" / "didgen"
    assert f"runs in {environment.parent} with {link / '__main__.py'}" in log
    assert f"'{installed}'" not in log
