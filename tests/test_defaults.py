"""A setting's default stands in `didgen/settings` alone: no function or class below repeats it."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from didgen.settings.rivals import Methods

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "didgen"
MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent.name != "settings"]
# What has the name of a key and is another thing, or no setting of a run.
OTHERS = {
    "captions/condense.py: condense.retries": "without `rewrite` there is nothing to try again",
    "captions/llm.py: ChatRequest.seed": "at temperature 0 nothing depends on it",
    "captions/llm.py: ChatRequest.temperature": "attributes are read, prompts are drawn",
    "captions/openai_server.py: __init__.retries": "of a request; the key's are of an answer",
    "captions/recombine.py: PromptCounts.near_duplicates": "a count",
    "data/download.py: fetch_archives.patience": "tests wait less; the key is of early stopping",
    "data/hair.py: HairRule.margin": "of a hair; the key's is of a verdict",
    "data/phantoms/cohort.py: cohort.classes": "all that can be drawn",
    "data/transfer.py: Patience.retries": "of a download",
    "downstream/segmenters.py: SegmenterCard.model": "files that do not say are of a U-Net",
    "methods/didgen/method.py: train.variant": "whose training; the key's is of losses",
    "methods/warp.py: WarpSynthesizer.memory_gb": "it has no weights",
    "metrics/contrasts.py: detectable.power": "of a statistical test",
    "metrics/contrasts.py: lesions_for.power": "of a statistical test",
    "metrics/contrasts.py: p.margin": "the usual p",
    "metrics/contrasts.py: seeds_for.power": "of a statistical test",
    "report/figures.py: interval_chart.arm": "a word of a picture; the key's is of an export",
    "runtime/devices.py: lease_gpus.count": "of GPUs; the key's is of pairs",
    "runtime/progress.py: track.label": "words before a progress bar",
}
# The recipe of the weights that come with the package is no run's.
RECIPES = "tiny/"
# The Python interface has defaults where the settings have them, the same.
INTERFACE = "api.py"


def keys() -> dict[str, list[object]]:
    """The defaults of every key, in all sections that declare it."""
    found: dict[str, list[object]] = {}
    for path in (PACKAGE / "settings").glob("[!_]*.py"):
        module = importlib.import_module(f"didgen.settings.{path.stem}")
        for kind in vars(module).values():
            # The names of methods are no keys.
            if isinstance(kind, type) and issubclass(kind, BaseModel) and kind is not Methods:
                for name, field in kind.model_fields.items():
                    if not field.is_required():
                        found.setdefault(name, []).append(field.get_default())
    return found


def defaults(tree: ast.Module) -> Iterator[tuple[str, str, ast.expr]]:
    """Function or class, name and default of each parameter and field that has one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = [*node.args.posonlyargs, *node.args.args]
            last = given[len(given) - len(node.args.defaults) :]
            pairs = [*zip(last, node.args.defaults, strict=True)]
            pairs += zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            yield from ((node.name, arg.arg, value) for arg, value in pairs if value is not None)
        elif isinstance(node, ast.ClassDef):
            for part in node.body:
                if isinstance(part, ast.AnnAssign) and part.value is not None:
                    yield node.name, ast.unparse(part.target), part.value


def says_something(value: ast.expr, from_settings: set[str]) -> bool:
    """Whether a default is a value of its own, neither "nothing given" nor of the settings."""
    if any(isinstance(node, ast.Name) and node.id in from_settings for node in ast.walk(value)):
        return False
    nothing = ("None", "()", "slice(None)", "field(default_factory=dict)", "Field(None")
    return not ast.unparse(value).startswith((*nothing, "field(default_factory=list)"))


def repeated(path: Path, named: set[str]) -> dict[str, ast.expr]:
    """The defaults of a file under the name of a setting: place -> default."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    from_settings = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("didgen.settings")
        for alias in node.names
    }
    place = path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else path.name
    return {
        f"{place}: {owner}.{name}": value
        for owner, name, value in defaults(tree)
        if name in named and says_something(value, from_settings)
    }


def test_no_default_of_a_setting_is_declared_again() -> None:
    declared = keys()
    found: dict[str, ast.expr] = {}
    for path in MODULES:
        found |= repeated(path, set(declared))
    interface = {place: value for place, value in found.items() if place.startswith(INTERFACE)}
    for place, value in interface.items():
        assert ast.literal_eval(value) in declared[place.rpartition(".")[2]], place
    rest = {place for place in set(found) - set(interface) if not place.startswith(RECIPES)}
    assert rest == set(OTHERS), "let the caller say it, or say in OTHERS what else it is"


def allowed_words(path: Path) -> set[str]:
    """The lists of two or more words that a file allows: the contents of each `Literal`."""
    return {
        ast.unparse(node.slice)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal"
        if isinstance(node.slice, ast.Tuple)
    }


def test_no_list_of_allowed_words_is_declared_again() -> None:
    settings = set().union(*map(allowed_words, (PACKAGE / "settings").glob("*.py")))
    assert "('crop', 'pad', 'squash')" in settings
    # It imports torch alone.
    losses = PACKAGE / "attention" / "losses.py"
    again = {path.name: allowed_words(path) & settings for path in MODULES if path != losses}
    assert not {name: words for name, words in again.items() if words}


@pytest.mark.parametrize(
    ("code", "seen"),
    [
        ("def f(steps=3): ...", True),
        ("def f(*, steps=3): ...", True),
        ("class A:\n    steps: int = 3", True),
        ("STEPS = 3\ndef f(steps=STEPS): ...", True),
        ("def f(steps): ...", False),
        ("def f(steps=None): ...", False),
        ("def f(number=3): ...", False),
        ("from didgen.settings.a import A\ndef f(steps=A().steps): ...", False),
    ],
)
def test_a_repeated_default_is_seen(tmp_path: Path, code: str, seen: bool) -> None:
    path = tmp_path / "a.py"
    path.write_text(code)
    assert bool(repeated(path, {"steps"})) is seen
