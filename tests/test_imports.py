"""Imports point one way: the rooms of the package, what formulas may use, what names may not be."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from didgen.settings.extras import PACKAGES

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "didgen"

# The table of rooms, which the documentation shows: a level may import those below it.
ROW = re.compile(r"^\| (\d) \| `(\w+)` \|", re.MULTILINE)
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
LEVEL = {room: int(level) for level, room in ROW.findall(ARCHITECTURE)}
TOP = max(LEVEL.values())
MODULES = sorted(PACKAGE.rglob("*.py"))
FORMULAS = {"torch"}
METRICS = {"numpy", "scipy", "torch", "sklearn"}
# Of users; `slurm` is a plugin that snakemake loads, `dev` is for the tests.
EXTRAS = sorted({extra for _, extra in PACKAGES.values() if extra})


def module_name(path: Path) -> str:
    """The dotted name of a file of the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_from(path: Path, node: ast.ImportFrom) -> str:
    """The module that a `from` names, relative ones resolved."""
    if not node.level:
        return node.module or ""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    above = package[: len(package) - node.level + 1]
    return ".".join([*above, node.module] if node.module else above)


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """Every module that a file names, with its line: imports anywhere in it, functions and
    TYPE_CHECKING blocks included, relative ones resolved, and strings such as "didgen.x:y", from
    which modules are loaded by name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = imported_from(path, node)
            yield base, node.lineno
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = node.value.partition(":")[0]
            if name.startswith("didgen.") and all(map(str.isidentifier, name.split("."))):
                yield name, node.lineno


def import_graph(paths: Iterable[Path]) -> dict[str, set[str]]:
    """For each module those among the files that it imports, inside functions and for types too.

    Modules that are loaded by a name, as from a registry, are not among them.
    """
    files = {module_name(path): path for path in paths}
    graph: dict[str, set[str]] = {}
    for module, path in files.items():
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = imported_from(path, node)
                inner = {f"{base}.{alias.name}" for alias in node.names}
                names |= inner if inner <= set(files) else inner | {base}
        graph[module] = names & set(files) - {module}
    return graph


def room_of(module: str) -> str | None:
    """The room a module of the package lies in; None for other packages and for plain names."""
    parts = module.split(".")
    return parts[1] if parts[0] == "didgen" and len(parts) > 1 and parts[1] in LEVEL else None


def allowed(importer: str, target: str) -> bool:
    """Whether one room may import another."""
    if importer == target or LEVEL[importer] == LEVEL[target] == TOP:
        return True
    return LEVEL[target] < LEVEL[importer]


def faults(path: Path) -> list[str]:
    """The imports of a file that point the wrong way."""
    importer = room_of(module_name(path))
    found = []
    for name, line in imported(path):
        target = room_of(name)
        if importer and target and not allowed(importer, target):
            found.append(f"{path.name}:{line}: {importer} imports {name}")
    return found


def outside(path: Path) -> set[str]:
    """The packages a file imports beside the standard library and this package."""
    tops = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            tops |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            tops.add((node.module or "").split(".")[0])
    return tops - set(sys.stdlib_module_names) - {"didgen"}


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_point_down(path: Path) -> None:
    assert not faults(path)


def test_no_module_imports_itself_by_a_detour() -> None:
    cycle: list[str] = []
    try:
        TopologicalSorter(import_graph(MODULES)).prepare()
    except CycleError as error:
        cycle = error.args[1]
    assert not cycle, f"modules import each other: {' -> '.join(cycle)}"


def test_a_detour_by_functions_types_and_relative_names_is_seen(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    package = tmp_path / "didgen"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("def f():\n    from didgen import b\n")
    (package / "b.py").write_text("if TYPE_CHECKING:\n    from .c import C\n")
    (package / "c.py").write_text("import didgen.a\n")
    with pytest.raises(CycleError) as found:
        TopologicalSorter(import_graph(package.glob("*.py"))).prepare()
    assert set(found.value.args[1]) == {"didgen.a", "didgen.b", "didgen.c"}


def test_every_room_has_a_level() -> None:
    rooms = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in MODULES}
    assert rooms - {"__init__"} == set(LEVEL), "docs/architecture.md has one row for each room"


@pytest.mark.parametrize(
    ("importer", "target", "verdict"),
    [
        ("stages", "metrics", True),
        ("metrics", "data", True),
        ("cli", "settings", True),
        ("methods", "attention", True),
        ("metrics", "report", False),
        ("attention", "backbone", False),
        ("data", "captions", False),
        ("captions", "stages", False),
    ],
)
def test_allowed_by_hand(importer: str, target: str, verdict: bool) -> None:
    assert allowed(importer, target) is verdict


def test_lazy_relative_and_named_imports_are_seen(tmp_path: Path, monkeypatch) -> None:
    package = tmp_path / "didgen" / "metrics"
    package.mkdir(parents=True)
    path = package / "fidelity.py"
    path.write_text(
        "def score():\n"
        "    from ..report import figures\n"
        "    import didgen.captions.condense\n"
        "METHODS = {'ours': 'didgen.methods.didgen:Ours'}\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    lines = {int(fault.split(":")[1]) for fault in faults(path)}
    assert lines == {2, 3, 4}


@pytest.mark.parametrize("name", ["losses.py", "maps.py"])
def test_attention_formulas_import_only_torch(name: str) -> None:
    path = PACKAGE / "attention" / name
    assert outside(path) <= FORMULAS
    assert {room_of(module) for module, _ in imported(path)} <= {None, "attention"}


@pytest.mark.parametrize(
    "path", sorted((PACKAGE / "metrics").glob("*.py")), ids=lambda path: path.stem
)
def test_metric_formulas_import_only_numerics(path: Path) -> None:
    assert outside(path) <= METRICS
    assert {room_of(module) for module, _ in imported(path)} <= {None, "metrics"}


def declared(*extras: str) -> dict[str, set[str]]:
    """The packages of pyproject.toml, or of some extras, each with the names it is imported by."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    texts = [text for extra in extras for text in optional[extra]] or project["dependencies"]
    names: dict[str, set[str]] = {}
    for text in texts:
        package = canonicalize_name(Requirement(text).name)
        # Of what is not installed here: as the package is called, or without `-python`.
        names[package] = {
            guess.replace("-", "_") for guess in (package, package.removesuffix("-python"))
        }
    for module, packages in packages_distributions().items():
        for package in map(canonicalize_name, packages):
            if package in names:
                names[package].add(module)
    return names


def test_every_import_is_a_declared_dependency() -> None:
    known = set().union(*declared().values(), *declared(*EXTRAS).values())
    assert not {name for path in MODULES for name in outside(path)} - known


def test_a_plain_installation_has_what_is_imported_without_a_choice() -> None:
    """What only an extra brings is in `settings/extras.py`, which says when it is needed."""
    plain = set().union(*declared().values())
    used = {name for path in MODULES for name in outside(path)}
    assert used - plain <= set(PACKAGES)


@pytest.mark.parametrize("extra", [None, *EXTRAS])
def test_every_declared_dependency_is_imported(extra: str | None) -> None:
    used = {name for path in MODULES for name in outside(path) | named(path)}
    # The workflow's own, which the launcher starts; and what accelerate opens for `report_to`.
    tools = {"snakemake", "tensorboard"}
    unused = {
        package
        for package, names in declared(*([extra] if extra else [])).items()
        if not names & used and package not in tools
    }
    assert not unused, "declared in pyproject.toml but imported nowhere"


def test_every_dependency_of_developers_is_used() -> None:
    places = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py"), *MODULES]
    used = {name for path in places for name in outside(path) | named(path)}
    # Run by `make lint` and `make test`, by git, by pytest itself, or by pip to build a wheel.
    tools = {
        "hatchling",
        "mypy",
        "pre-commit",
        "ruff",
        "snakefmt",
        "pytest-timeout",
        "pytest-xdist",
    }
    unused = {
        package
        for package, names in declared("dev").items()
        if not names & used and package not in tools
    }
    assert not unused, "declared in pyproject.toml but used nowhere"


def named(path: Path) -> set[str]:
    """Modules that a file names as text and loads by that name, as `importorskip` does."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        argument.value.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for argument in node.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
        if ast.unparse(node.func).split(".")[-1] in ("require", "importorskip", "import_module")
    }


def test_no_room_for_homeless_code() -> None:
    homeless = {"utils", "util", "helpers", "common", "misc"}
    places = [*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *ROOT.glob("rules/*.smk")]
    found = [path for path in places if path.stem in homeless]
    assert not found, "name the module after what it holds"


# Where words of diffusion belong. `downstream` has U-Nets of another kind; `api` is of one method.
OF_DIFFUSION = {"api", "attention", "backbone", "downstream", "methods", "settings", "tiny"}
DIFFUSION = {"eta", "tau", "unet", "vae", "scheduler", "latent", "latents"}


def test_words_of_diffusion_stay_in_their_rooms() -> None:
    """Stages, rules and the report know no method's inside."""
    strange = []
    for path in MODULES:
        if room_of(module_name(path)) not in OF_DIFFUSION:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                # Variables, attributes, parameters, keywords, and what is defined or imported.
                names = [getattr(node, field, None) for field in ("id", "attr", "arg", "name")]
                words = "_".join(name for name in names if isinstance(name, str)).lower().split("_")
                strange += [f"{path.name}: {word}" for word in words if word in DIFFUSION]
    for path in ROOT.glob("rules/*.smk"):
        words = re.findall("[a-z]+", path.read_text(encoding="utf-8").lower())
        strange += [f"{path.name}: {word}" for word in words if word in DIFFUSION]
    assert not strange


def test_settings_load_without_heavy_libraries() -> None:
    """The launcher checks a configuration with pydantic alone."""
    heavy = ("torch", "diffusers", "transformers", "timm", "pandas", "skimage", "matplotlib")
    code = f"import sys, didgen.settings.run; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", sorted((PACKAGE / "stages").glob("*.py")), ids=module_name)
def test_a_stage_imports_at_the_top_of_its_file(path: Path) -> None:
    """It is loaded only to be run, by the command line, which has all imports of stages in one
    place."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    below = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom) and node not in tree.body
    ]
    assert not below


def test_no_package_of_an_extra_is_imported_when_a_stage_is_loaded() -> None:
    """What one option needs is imported where that option is used."""
    files = {module_name(path): path for path in MODULES}
    waiting = [name for name in files if name.startswith("didgen.stages.")]
    seen: set[str] = set()
    loaded: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in files:
            loaded.add(name.split(".")[0])
        elif name not in seen:
            seen.add(name)
            for node in ast.parse(files[name].read_text(encoding="utf-8")).body:
                if isinstance(node, ast.Import):
                    waiting += [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    base = imported_from(files[name], node)
                    inner = [f"{base}.{alias.name}" for alias in node.names]
                    waiting += [base, *(each for each in inner if each in files)]
    assert "torch" in loaded and len(seen) > 100
    assert not loaded & set(PACKAGES)
