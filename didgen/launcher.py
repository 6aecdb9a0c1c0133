"""Start the workflow: snakemake with the Snakefile that came with this package."""

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from didgen.settings.configfile import check_configfile

# A wheel has the workflow inside the package; in a checkout it lies beside it.
_INSTALLED = Path(__file__).parent / "_workflow"
HOME = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[1]
# Where snakemake itself looks for a configuration if none is named.
DEFAULT = Path("config/config.yaml")


def launch(arguments: Sequence[str]) -> NoReturn:
    """Check the arguments, then become snakemake.

    Raises: ValueError for a configuration that is none, or a target that does not exist; OSError
    where nothing can be written.
    """
    own, others = _parser().parse_known_args(arguments)
    # Slow to import, and it ends here for options that it does not know.
    from snakemake.cli import parse_args

    snakefile = str(HOME / "workflow" / "Snakefile")
    options = parse_args(["--snakefile", snakefile, *others])[1]
    folder = Path(options.directory or ".")
    check_writable(folder)
    check_targets(options.targets)
    files = [_place(Path(name)) for name in own.configfile or ()] or list(options.configfile)
    if not files and not (folder / DEFAULT).is_file():
        files = [HOME / DEFAULT]
    for file in files:
        check_configfile(file)
    named = ["--configfile", *(str(file.absolute()) for file in files)] if files else []
    command = [sys.executable, "-m", "snakemake", "--snakefile", snakefile, *others, *named]
    os.execv(sys.executable, command)


def targets() -> dict[str, str]:
    """What can be built by name, and its description."""
    described = {}
    for path in (HOME / "workflow" / "Snakefile", *sorted((HOME / "rules").glob("*.smk"))):
        rules = re.findall(
            r'^rule (\w+):\n +"""(.+?)"""', path.read_text(), re.DOTALL | re.MULTILINE
        )
        described |= {name: " ".join(text.split()) for name, text in rules}
    # Of these there are several jobs, which a target of the shorter name gathers.
    return {name: text for name, text in described.items() if not name.endswith("_job")}


def check_targets(names: Sequence[str]) -> None:
    """Raises: ValueError for a name that is neither a target nor a file of a run."""
    unknown = [name for name in names if name not in targets() and "/" not in name]
    if unknown:
        raise ValueError(
            f"found the targets {unknown}, expected some of {', '.join(targets())}, or a file such "
            "as results/demo/verdict.json"
        )


def check_writable(folder: Path) -> None:
    """Raises: OSError unless files can be made in the working folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            f"{folder.absolute()}: nothing can be written there ({error.strerror}); go to a folder "
            "of your own, or name one with --directory"
        ) from None


def _place(file: Path) -> Path:
    """A configuration file, or the one of that name that came with this package."""
    return file if file.exists() or not (HOME / file).is_file() else HOME / file


def _parser() -> argparse.ArgumentParser:
    lines = ["targets:", *(f"  {name:15} {text}" for name, text in targets().items())]
    names = ", ".join(f"config/{path.name}" for path in sorted((HOME / "config").glob("*.yaml")))
    parser = argparse.ArgumentParser(
        prog="didgen run",
        usage="didgen run [TARGET ...] [--configfile FILE] [options of snakemake]",
        description="Run the workflow, or what one target of it needs, in the current folder: "
        "results go to results/<run>/. Other options, such as -n, --cores 4 or --forcerun maps, "
        "are snakemake's; `snakemake --help` lists them.",
        epilog="\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--configfile",
        action="append",
        metavar="FILE",
        help=f"what to run; without it config/config.yaml. These come with DiDGen: {names}",
    )
    return parser
