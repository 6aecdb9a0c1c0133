"""Packages that only some settings need, and the extras of the installation that bring them."""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from didgen.settings.base import Tracker

# Module: the package that has it, and the extra of pyproject.toml that brings the package, if any.
PACKAGES: dict[str, tuple[str, str | None]] = {
    "bitsandbytes": ("bitsandbytes", "finetune"),
    "llama_cpp": ("llama-cpp-python", "llm"),
    "llguidance": ("llguidance", "llm"),
    "open_clip": ("open-clip-torch", "finetune"),
    "peft": ("peft", "finetune"),
    "mlflow": ("mlflow", None),
    "tensorboard": ("tensorboard", "finetune"),
    "torch_fidelity": ("torch-fidelity", "fidelity"),
    "trackio": ("trackio", None),
    "wandb": ("wandb", None),
}


class MissingExtra(ValueError):
    """A setting needs a package that is not installed; the message names package and extra."""


@dataclass(frozen=True)
class Need:
    """A key of a section that needs a module where `asks` is true of its value."""

    section: str
    key: str
    asks: Callable[[Any], object]
    module: str


NEEDS = (
    Need("caption", "captioner", lambda value: value == "llama_cpp", "llama_cpp"),
    Need("caption", "captioner", lambda value: value == "transformers", "llguidance"),
    Need("finetune", "lora_rank", bool, "peft"),
    Need("finetune", "optimizer", lambda value: value == "adamw8bit", "bitsandbytes"),
    Need("fidelity", "spaces", lambda value: "inception" in value, "torch_fidelity"),
    *(
        Need(section, "report_to", tracker.__eq__, tracker)
        for section in ("finetune", "classify", "segment")
        for tracker in get_args(Tracker)
    ),
)


def check(config: Mapping[str, Any]) -> None:
    """Look for what the sections of a run configuration need, without importing it.

    Raises: MissingExtra, which names all that is missing.
    """
    missing = [
        _explain(need.module, f"{need.section}.{need.key}: {value}")
        for need in NEEDS
        # Keys left out have their defaults, which need no extra.
        if (value := config.get(need.section, {}).get(need.key)) is not None
        and need.asks(value)
        and not _installed(need.module)
    ]
    if missing:
        raise MissingExtra("\n".join(missing))


def require(module: str, purpose: str) -> None:
    """Make sure that a module of an extra can be imported; `purpose` says what needs it.

    Raises: MissingExtra.
    """
    if not _installed(module):
        raise MissingExtra(_explain(module, purpose))


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _explain(module: str, purpose: str) -> str:
    package, extra = PACKAGES[module]
    if extra is None:
        return f"{purpose} needs the package {package}: `pip install {package}`, or another setting"
    return (
        f"{purpose} needs the package {package}, of the extra `{extra}`: in the checkout run "
        f"`pip install -c constraints.txt -e '.[{extra}]'`, or choose another setting"
    )
