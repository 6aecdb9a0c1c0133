"""Extras: each is declared, asked for by keys that exist, and named when it is missing."""

import importlib.util
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from didgen.cli import EXIT_BAD_INPUT, main
from didgen.settings import extras
from didgen.settings.run import RunConfig

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def plain(monkeypatch) -> None:
    """An installation without extras."""
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name in extras.PACKAGES else found(name, *rest),
    )


def test_every_optional_package_is_in_the_extra_that_is_named():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {
        (Requirement(text).name, extra)
        for extra, texts in project["optional-dependencies"].items()
        for text in texts
    }
    assert {home for home in extras.PACKAGES.values() if home[1] is not None} <= declared


def test_the_default_configuration_needs_no_extra(plain):
    config = RunConfig().model_dump()
    extras.check(config)
    assert not [need for need in extras.NEEDS if need.asks(config[need.section][need.key])]


@pytest.mark.parametrize(
    ("section", "values", "package", "extra"),
    [
        ("caption", {"captioner": "llama_cpp"}, "llama-cpp-python", "llm"),
        ("caption", {"captioner": "transformers"}, "llguidance", "llm"),
        ("finetune", {"lora_rank": 4}, "peft", "finetune"),
        ("finetune", {"optimizer": "adamw8bit"}, "bitsandbytes", "finetune"),
        ("finetune", {"report_to": "tensorboard"}, "tensorboard", "finetune"),
        ("classify", {"report_to": "wandb"}, "wandb", None),
        ("segment", {"report_to": "mlflow"}, "mlflow", None),
        ("finetune", {"report_to": "trackio"}, "trackio", None),
        ("fidelity", {"spaces": ["inception"]}, "torch-fidelity", "fidelity"),
    ],
)
def test_a_setting_without_its_package_is_refused(plain, section, values, package, extra):
    config = RunConfig.model_validate({section: values}).model_dump()
    with pytest.raises(extras.MissingExtra) as caught:
        extras.check(config)
    (key,) = values
    message = str(caught.value)
    assert f"{section}.{key}" in message and package in message
    assert (f".[{extra}]" if extra else f"`pip install {package}`") in message


def test_all_that_is_missing_is_named_at_once(plain):
    config = RunConfig.model_validate(
        {"finetune": {"lora_rank": 4}, "fidelity": {"spaces": ["inception"]}}
    ).model_dump()
    with pytest.raises(extras.MissingExtra, match="(?s)peft.*torch-fidelity"):
        extras.check(config)


def test_a_stage_stops_before_it_reads_its_input(plain, tmp_path, caplog):
    paths = {"train": "none.csv", "captions": "none.csv", "state": "s", "out": tmp_path / "out"}
    flags = [text for key, path in paths.items() for text in (f"--{key}", str(path))]
    assert main(["finetune", *flags, "--lora-rank", "4"]) == EXIT_BAD_INPUT
    assert "peft" in caplog.text and "none.csv" not in caplog.text
    assert not (tmp_path / "out").exists()


def test_what_is_asked_of_a_key_is_asked_of_one_that_exists():
    config = RunConfig().model_dump()
    assert all(need.key in config[need.section] for need in extras.NEEDS)
