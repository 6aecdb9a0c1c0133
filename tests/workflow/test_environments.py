"""Pins agree: constraints, package metadata and conda environments speak of the same versions."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
CUDA = re.compile("nvidia|cuda|triton")
ENVIRONMENTS = sorted((ROOT / "envs").glob("*.yaml"))


def constraints() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pins}


def requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    return [Requirement(text) for group in [project["dependencies"], *extras] for text in group]


def test_constraints_serve_machines_without_cuda() -> None:
    assert not [name for name in constraints() if CUDA.match(name)]
    assert not [name for name, version in constraints().items() if version.local]


@pytest.mark.parametrize("requirement", requirements(), ids=lambda r: r.name)
def test_every_requirement_is_pinned_within_its_bounds(requirement: Requirement) -> None:
    assert constraints()[canonicalize_name(requirement.name)] in requirement.specifier


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)
def test_conda_environments_pin_the_tested_versions(path: Path) -> None:
    dependencies = yaml.safe_load(path.read_text())["dependencies"]
    pip = next(entry["pip"] for entry in dependencies if isinstance(entry, dict))
    assert pip
    for text in pip:
        # Environment files are copied elsewhere before use, so nothing in them may be relative.
        requirement = Requirement(text)
        if CUDA.match(canonicalize_name(requirement.name)):
            continue  # test_envs.py compares these with what torch asks for
        pinned = constraints()[canonicalize_name(requirement.name)]
        assert str(requirement.specifier) == f"=={pinned}"


def test_the_catalog_promises_what_the_rules_keep() -> None:
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert usage["software-stack-deployment"]["conda"] is True
    rules = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    assert rules.count("    conda:\n") == rules.count("    shell:\n") > 0
    assert usage["report"] is usage["software-stack-deployment"]["report"] is True
    assert rules.count("=report(") > 0


def test_every_rule_names_an_environment_that_exists() -> None:
    named = {
        name
        for path in (ROOT / "rules").glob("*.smk")
        for name in re.findall(r'envs/([\w-]+\.yaml)"', path.read_text())
    }
    assert named and named <= {path.name for path in ENVIRONMENTS}
