"""The page: sections in order, drawn by templates that escape every string they are given."""

from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from didgen.report.reading import sets_of_methods
from didgen.settings.report import Settings as Options

SECTIONS = (
    "verdict",
    "data",
    "captions",
    "samples",
    "pairs",
    "attention",
    "fidelity",
    "methods",
    "training",
    "results",
    "provenance",
)
_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Section:
    """A section: its anchor and template's name, its title, what it shows, what is missing.

    `content` is None when the run has nothing for this section; `missing` then says why.
    """

    name: str
    title: str
    content: dict[str, Any] | None
    missing: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


def build(run_dir: Path, options: Options) -> str:
    """The whole page for the run in `run_dir`, as one HTML document.

    Raises: NotADirectoryError if there is no such run; BrokenResult or ManifestError if a result
    exists but cannot be read.
    """
    if not run_dir.is_dir():
        raise NotADirectoryError(
            f"{run_dir}: no such folder; expected the folder of a run, results/<run>"
        )
    # Without other methods there is nothing to compare the run's own with.
    several = len(sets_of_methods(run_dir)) > 1
    sections = [
        import_module(f"didgen.report.sections.{name}").section(run_dir, options)
        for name in SECTIONS
        if several or name != "methods"
    ]
    return render(run_dir.resolve().name, sections)


def render(run: str, sections: list[Section]) -> str:
    """Draw sections as one self-contained HTML document; the first one gives the headline."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    from didgen import __version__
    from didgen.report import numbers

    environment = Environment(
        loader=FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": numbers.number,
        "p_value": numbers.p_value,
        "plural": numbers.plural,
        "whole": numbers.whole,
    }
    # The project's own style sheet is the one text that is not escaped.
    style = Markup((_FOLDER / "style.css").read_text(encoding="utf-8"))
    template = environment.get_template("page.html.j2")
    return template.render(run=run, sections=sections, style=style, version=__version__) + "\n"
