"""The command line: one command a stage, its flags made from the stage's Config."""

import argparse
import importlib
import logging
import os
import re
import signal
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from didgen.settings import extras
from didgen.settings.config_file import ConfigFileError, parse_json, read_config_file

# What each does, in the order of the data flow.
STAGES = {
    "fetch": "Download and verify the archives of a source.",
    "data": "Read the source, prepare its images and split them without leaks.",
    "caption": "Write one clinical sentence per image, and the attributes that it says.",
    "finetune": "Fine-tune the backbone once, with the region-aware attention loss (Eq. 1, 3, 4).",
    "train": "Train another method of synthesis on the same images.",
    "prompts": "Write new prompts for sampling with the language model that wrote the captions.",
    "images": "Synthesize class-conditional images from text alone.",
    "pairs": "Synthesize lesion-mask pairs: layout guidance (Eq. 5, 6), then annotation (Eq. 7).",
    "filter": "Keep or reject pairs by their scores, and show what was rejected and why.",
    "augment": "Gather the synthetic images and the kept pairs into one augmented data set.",
    "maps": "Measure how well the attention maps find the lesions of held-out real images.",
    "classify": "Train a classifier on one arm and test it on real images.",
    "segment": "Train a segmenter on one arm and test it on real images.",
    "fidelity": "How close synthetic images are to real ones, and how much they differ.",
    "label_judges": "Train classifiers of real images that judge the classes of synthetic ones.",
    "label_fidelity": "Do synthetic images show the class that was asked for?",
    "external_data": "Prepare external test sets, apart from what networks learn from.",
    "external_test": "Test every network of every arm on the external sets.",
    "verdict": "Compare the arms: does synthetic data help, and how sure is that?",
    "report": "Write the report: one self-contained HTML page.",
}
TOOLS = {
    "export": "Write a run's images, or a submission to ISIC 2018, in another tool's format.",
    "weights": "Bring a run's weights into the local cache, for nodes without a network.",
    "pretrain-tiny": "Pretrain the tiny backbone on phantoms (its result comes with DiDGen).",
    "schema": "Write the JSON schema and config/README.md from the settings, or check them.",
}
RUN = "run"
EXIT_BAD_INPUT = 2
EXIT_FAILED = 1
LOGGER = logging.getLogger("didgen")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one stage; the exit code is 0, 1 (it failed) or 2 (the input or a setting is wrong)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        _parser().print_help()
        return 0
    if arguments[0] == "--version":
        from didgen import __version__

        print(f"didgen {__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in {RUN} | STAGES.keys() | TOOLS.keys():
        _parser().error(f"no stage named {name!r}; stages are {', '.join(STAGES | TOOLS)}")
    # SLURM ends jobs with SIGTERM, which the shell around a stage has it ignore; as an exit it
    # runs every clean-up on its way out. Before the stage's imports, which may take seconds.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # Read when PyTorch is imported. Threads that spin while they wait for one that another process
    # keeps from running make a step up to seventy times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    _start_logging(name)
    try:
        if name == RUN:
            from didgen.launcher import launch

            launch(rest)
        kind = settings_of(name, rest)
        config = read_config(kind, _stage_parser(name, kind), rest)
        extras.check({name: dict(config)})
        # The one place where a stage is imported, with all that it needs: after its settings were
        # checked, and never for --help.
        importlib.import_module(f"didgen.stages.{_file(name)}").run(config)
    except ValidationError as error:
        LOGGER.error("%s: wrong settings\n%s", name, explain(error))
        return EXIT_BAD_INPUT
    except ValueError as error:
        LOGGER.error("%s: %s", name, error, exc_info=_debugging())
        return EXIT_BAD_INPUT
    except OSError as error:
        if error.filename and isinstance(error, FileExistsError | NotADirectoryError):
            LOGGER.error("%s: %s: found a file, expected a folder", name, error.filename)
            return EXIT_BAD_INPUT
        LOGGER.error("%s: %s", name, error, exc_info=_debugging())
        return EXIT_FAILED
    except KeyboardInterrupt:
        LOGGER.error("%s: interrupted; run the same command to continue", name)
        return 130
    return 0


def explain(error: ValidationError) -> str:
    """One line a fault: the key, what was found and what is allowed."""
    lines = []
    for fault in error.errors():
        key = ".".join(map(_short, fault["loc"])) or "(whole section)"
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            message = "unknown key; remove it or correct its spelling"
        # What stands under a key that does not exist, or under one of a key, may be a secret.
        hidden = fault["type"] in ("missing", "value_error", "extra_forbidden") or "key" in key
        text = repr(fault["input"])
        # Nor is an address shown that stands where none belongs.
        shown = "" if hidden or "://" in text or "@" in text else f": found {_short(text)}"
        lines.append(f"  {key}{shown}: {message}")
    return "\n".join(lines)


def _short(part: object) -> str:
    """A text of the user's for one line of a terminal."""
    text = str(part)
    text = text if len(text) <= 200 else f"{text[:200]}..."
    return text if text.isprintable() else repr(text)


def read_config(
    kind: type[BaseModel], parser: argparse.ArgumentParser, arguments: Sequence[str]
) -> BaseModel:
    """Build a stage's Config from `--settings` (a JSON object or file) and flags, which win."""
    given = vars(parser.parse_args(arguments))
    values = _settings(given.pop("settings", None))
    return kind.model_validate(values | given)


def _settings(text: str | None) -> dict:
    if text is None:
        return {}
    if not text.lstrip().startswith("{"):
        return read_config_file(Path(text))
    try:
        return parse_json(text)
    except ConfigFileError as error:
        raise ValueError(f"--settings: {error}; expected an object or a file") from None


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, STAGES | TOOLS))
    lines = [f"  {RUN:{width}}  Run the whole workflow, or a target of it: `didgen run --help`."]
    lines += ["", "stages, in the order data walks:"]
    lines += [f"  {name:{width}}  {text}" for name, text in STAGES.items()]
    lines += ["", "apart from the workflow:"]
    lines += [f"  {name:{width}}  {text}" for name, text in TOOLS.items()]
    lines += ["", "`didgen STAGE --help` lists a stage's flags."]
    return argparse.ArgumentParser(
        prog="didgen",
        usage="python -m didgen STAGE [--settings JSON] [flags]",
        description="Synthetic dermoscopic images and lesion-mask pairs, and a verdict on them.",
        epilog="\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def settings_of(name: str, arguments: Sequence[str] = ()) -> type[BaseModel]:
    """The settings and paths of a stage or tool; where methods differ in them, of the one named."""
    module = importlib.import_module(f"didgen.settings.{_file(name)}")
    if not hasattr(module, "config_of"):
        return module.Config
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in ("--settings", "--method"):
        parser.add_argument(flag)
    given = parser.parse_known_args(arguments)[0]
    return module.config_of(
        _settings(given.settings) | ({"method": given.method} if given.method else {})
    )


def _file(name: str) -> str:
    return name.replace("-", "_")


def _stage_parser(name: str, kind: type[BaseModel]) -> argparse.ArgumentParser:
    """A flag for each key. Not pydantic-settings: it takes no list after one flag, splits texts at
    their commas, and adds 0.3 s to the start of every command."""
    parser = argparse.ArgumentParser(
        prog=f"python -m didgen {name}", description=(STAGES | TOOLS)[name], allow_abbrev=False
    )
    parser.add_argument(
        "--settings",
        action=_Once,
        default=argparse.SUPPRESS,
        metavar="JSON",
        help="the stage's section: a JSON object, or a JSON or YAML file of one",
    )
    for key, field in kind.model_fields.items():
        many = _is_many(field.annotation)
        default = "required" if field.is_required() else f"default: {field.get_default()}"
        text = f"{field.description or ''} ({default})".replace("%", "%%")
        parser.add_argument(
            f"--{key.replace('_', '-')}",
            dest=key,
            action=_Once,
            default=argparse.SUPPRESS,
            nargs="+" if many else None,
            type=_literal,
            help=text,
            metavar=key.upper(),
        )
    return parser


class _Once(argparse.Action):
    """Of a flag that stands twice only the last one would count."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if self.dest in namespace:
            parser.error(f"{option_string} stands twice, and only one would count; make them one")
        setattr(namespace, self.dest, values)


def _literal(text: str) -> object:
    """A flag's value: null, true, false and objects as JSON; pydantic converts the rest."""
    if text.lstrip().startswith("{"):
        try:
            return parse_json(text)
        except ConfigFileError as error:
            raise argparse.ArgumentTypeError(f"{error}; expected an object") from None
    return {"null": None, "none": None, "true": True, "false": False}.get(text.lower(), text)


def _is_many(annotation: object) -> bool:
    if typing.get_origin(annotation) in (list, tuple):
        return True
    return any(_is_many(inner) for inner in typing.get_args(annotation) if inner is not type(None))


class _Plain(logging.Formatter):
    """Without what may command a terminal, as in names of files, or be a secret in an address.

    Libraries put the addresses that they ask into their errors: those of the environment, which
    no setting checks, and those that a server sent them on to.
    """

    def format(self, record: logging.LogRecord) -> str:
        text = re.sub(r"(\w:/+)[^/\s]*@", r"\1", super().format(record))
        text = re.sub(r"(\w:/+[^\s?#'\"]*)[?#][^\s'\"]+", r"\1", text)
        return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def _start_logging(stage: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_Plain(f"%(asctime)s {stage}: %(message)s", "%H:%M:%S"))
    level = logging.DEBUG if _debugging() else logging.INFO
    logging.basicConfig(level=level, handlers=[handler])
    for noisy in ("httpx", "PIL", "matplotlib", "urllib3", "filelock", "numexpr"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _debugging() -> bool:
    return bool(os.environ.get("DIDGEN_DEBUG"))
