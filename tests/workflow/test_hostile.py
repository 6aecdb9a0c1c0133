"""Whatever a user writes reaches its stage as it was written, and no shell reads it."""

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from didgen.settings.run import RunConfig

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "workflow" / "schemas" / "config.schema.json").read_text())

# Another flag; a file F by every kind of expansion; quotes; wildcards; Snakemake's and Python's
# formats; globs; a comment; what is no ASCII.
SHELL = (
    "-n --out=F $(touch F)`touch F`;touch F|touch F&touch F\n\"'\\ *?[a-z]~ %s #! \t\N{SNOWMAN} "
)
WORDS = "{} {input} {wildcards.arm} {scatteritem} {{RUN}} ${HOME}"
# An address takes no spaces, no query and no parameters.
ADDRESS = (
    "http://localhost/$(touch${IFS}F)`touch${IFS}F`|touch${IFS}F&'\"\\*[a-z]~%s\N{SNOWMAN}{}{input}"
)
# Of inputs: Snakemake has no way to escape their braces, and each file must exist.
EXTERNAL = ("data", "external", "[]")
FILES = {("data", "table"), ("sets", "*", "metadata"), (*EXTERNAL, "table")}
FOLDERS = {("data", "folder"), ("data", "mirror"), ("mirror",), (*EXTERNAL, "folder")}
# A hostile value is an error in the configuration.
REFUSED = {
    ("run",),
    ("arms", "[]"),
    ("sets", "(name)"),
    (*EXTERNAL, "name"),
    ("caption", "api_key_variable"),
    ("verdict", "control"),
    ("verdict", "treatment"),
}
# The stage that receives a place, where it is not named like the section.
STAGES = {
    "methods": "train",
    "mirror": "fetch",
    "data": "data",
    "data.mirror": "fetch",
    "data.archives": "fetch",
    "data.external": "external_data",
    "sets": "classify",
}
RUNS = {
    "table": {
        "data": {
            "source": "table",
            "table": "own.csv",
            "size": 128,
            "external": [{"source": "table", "table": "outside.csv"}],
        },
        "caption": {"captioner": "llama_cpp", "model": "a.gguf", "mmproj": "b.gguf"},
        "images": {"per_class": 1, "prompts": "llm"},
        "arms": ["original", "duplicates", "synthetic", "other"],
        "sets": {"other": {"metadata": "other.csv"}},
    },
    "folder": {
        "data": {
            "source": "folder",
            "folder": "own",
            "size": 128,
            "external": [{"source": "folder", "folder": "outside"}],
        },
        "caption": {"captioner": "openai", "model": "c"},
    },
    "isic2018": {
        "data": {"source": "isic2018", "mirror": "old", "size": 128},
        "caption": {"captioner": "transformers", "model": "d"},
    },
    "mirror": {"data": {"source": "isic2018"}},
}
TARGETS = {
    "table": ["all", "weights"], "folder": ["caption", "external_data"], "mirror": ["fetch"]
}  # fmt: skip


def texts(node: dict, place: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where the configuration takes any text: keys, `[]` for items, `*` for values of a mapping,
    `(name)` for its names."""
    for option in node.get("anyOf", ()):
        yield from texts(option, place)
    if node.get("type") == "string" and not {"enum", "const"} & set(node):
        yield place
    for key, value in node.get("properties", {}).items():
        yield from texts(value, (*place, key))
    if isinstance(node.get("additionalProperties"), dict):
        yield (*place, "(name)")
        yield from texts(node["additionalProperties"], (*place, "*"))
    for item in (*([node["items"]] if "items" in node else ()), *node.get("prefixItems", ())):
        yield from texts(item, (*place, "[]"))


PLACES = sorted(set(texts(SCHEMA)))


def stage_of(place: tuple[str, ...]) -> str:
    """The stage that receives what stands at a place."""
    return STAGES.get(".".join(place[:2]), STAGES.get(place[0], place[0]))


def runs(name: str, stage: str) -> bool:
    """Whether one of the runs has a stage."""
    if stage == "fetch":
        return RUNS[name]["data"]["source"] == "isic2018"
    if stage == "external_data":
        return "external" in RUNS[name]["data"]
    return name == "table" or (name != "mirror" and stage in ("data", "caption"))


def planted(config: dict, place: tuple[str, ...], value: str) -> dict:
    """A copy of a configuration with a value at a place."""
    config = copy.deepcopy(config)
    node: Any = config
    for here, after in zip(place, (*place[1:], None), strict=True):
        if here == "(name)":
            # Some mapping's value that another name of it may have.
            node[value] = next(iter(node.values()), "MEL" if place[-2] == "labels" else "own")
        elif here == "*":
            name = next(iter(node), "id" if place[-2] == "columns" else "word")
            if after is None:
                node[name] = value
            else:
                node = node.setdefault(name, {})
        elif here == "[]":
            node = next(iter(node), {})
        elif after is None:
            node[here] = value
        elif after == "[]" and here == place[-2]:
            node[here] = [*node.get(here, ()), value]
            break
        elif after == "[]":
            node = node.setdefault(here, [])
        else:
            node = node.setdefault(here, {})
    return config


def accepted(config: dict) -> bool:
    """Whether a run may have this configuration."""
    try:
        RunConfig.model_validate(config)
    except ValidationError:
        return False
    return True


def hostile(name: str) -> tuple[dict, dict[tuple[str, ...], str]]:
    """A run's configuration with a hostile value wherever one may stand, and these values."""
    config, values = RUNS[name], {}
    # One of these overrides the other.
    left_out = ("mirror",) if "mirror" in config["data"] else ("data", "mirror")
    for place in PLACES:
        text = SHELL + " ".join(place) + ("" if place in FILES | FOLDERS else WORDS)
        for value in (text, ADDRESS):
            changed = planted(config, place, value)
            if place != left_out and runs(name, stage_of(place)) and accepted(changed):
                config, values[place] = changed, value
                break
    return config, values


CONFIGS = {name: hostile(name) for name in RUNS}


def inside(value: Any) -> Iterator[str]:
    """All texts in a JSON value, names of mappings included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for pair in value.items():
            yield from inside(list(pair))
    elif isinstance(value, list):
        for item in value:
            yield from inside(item)


def received(folder: Path) -> list[dict]:
    """What each stub stage received: its name and its config."""
    return [json.loads(line) for line in (folder / "received.jsonl").read_text().splitlines()]


def test_a_hostile_value_is_tried_in_every_place() -> None:
    tried = {place for _, values in CONFIGS.values() for place in values}
    assert tried == set(PLACES) - REFUSED
    assert len(tried) > 20


@pytest.mark.parametrize("place", sorted(REFUSED), ids=".".join)
def test_a_place_that_takes_no_text_says_so(place: tuple[str, ...]) -> None:
    base = RUNS["table"]
    assert accepted(base)
    with pytest.raises(ValidationError, match="found|pattern|at most"):
        RunConfig.model_validate(planted(base, place, SHELL))


@pytest.mark.parametrize(
    "name",
    ["table", "isic2018", *(pytest.param(x, marks=pytest.mark.slow) for x in ("folder", "mirror"))],
)
def test_hostile_values_reach_their_stages_unchanged(unfinished: Path, snakemake, name) -> None:
    config, values = CONFIGS[name]
    for place in FILES & set(values):
        (unfinished / values[place]).touch()
    for place in FOLDERS & set(values):
        (unfinished / values[place]).mkdir()
        (unfinished / values[place] / "ISIC2018_Task3_Training_Input.zip").touch()
    for package in ("llama_cpp", "llguidance"):
        (unfinished / package).mkdir()
    (unfinished / "config" / "config.yaml").write_text(yaml.safe_dump(config))
    done = snakemake(unfinished, *TARGETS.get(name, ["caption"]))
    assert done.returncode == 0, done.stdout[-5000:]
    found: dict[str, set[str]] = {}
    for line in (unfinished / "received.jsonl").read_text().splitlines():
        stage, received = json.loads(line).values()
        found.setdefault(stage, set()).update(inside(received))
    for place, value in values.items():
        assert value in found[stage_of(place)], place
    assert not [path for path in unfinished.rglob("F")]


def test_every_word_of_a_command_is_quoted() -> None:
    """Numbers alone are safe as they are."""
    rules = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    commands = re.findall(r'^    shell:\n((?: {8}".*"\n)+)', rules, re.MULTILINE)
    assert len(commands) == rules.count("    shell:\n")
    words = {word for command in commands for word in re.findall(r"\{(.*?)\}", command)}
    numbers = {"threads", "resources.mem_mb", "resources.offline"}
    assert {word for word in words if not word.endswith(":q")} == numbers


def test_braces_in_the_name_of_an_input_are_an_error(unfinished: Path, snakemake) -> None:
    path = unfinished / "config" / "config.yaml"
    smoke = yaml.safe_load(path.read_text())
    (unfinished / "{input}").mkdir()
    for name in ("own.csv", "ISIC2018_Task3_Training_Input.zip"):
        (unfinished / "{input}" / name).touch()
    sets = {"other": {"metadata": "{input}/own.csv"}}
    for key, changes in {
        "data.table": {"data": {"source": "table", "table": "{input}/own.csv"}},
        "data.folder": {"data": {"source": "folder", "folder": "{input}"}},
        "data.mirror": {"data": {"source": "isic2018", "mirror": "{input}"}},
        "data.external.folder": {
            "data": smoke["data"] | {"external": [{"source": "ph2", "folder": "{input}"}]}
        },
        "sets.other.metadata": {
            "sets": sets,
            "arms": ["original", "duplicates", "synthetic", "other"],
        },
    }.items():
        path.write_text(yaml.safe_dump(smoke | changes))
        done = snakemake(unfinished, "-n")
        assert done.returncode != 0
        assert f"{key}: found {{input}}" in done.stdout and "rename" in done.stdout
        assert "Traceback" not in done.stdout


def test_a_checkout_and_a_working_folder_may_have_any_name(tmp_path: Path, fill, snakemake) -> None:
    checkout = tmp_path / f"{SHELL}checkout"
    folder = tmp_path / f"{SHELL}{{}} {{b}} folder"
    fill(checkout)
    (checkout / "config").rename(folder.mkdir() or folder / "config")
    done = snakemake(folder, "--snakefile", str(checkout / "workflow" / "Snakefile"))
    assert done.returncode == 0, done.stdout[-5000:]
    assert "They help." in done.stdout
    assert (folder / "received.jsonl").exists(), "the stub of the checkout was run"
    assert not [path for path in tmp_path.rglob("F")]


@pytest.mark.parametrize("name", ["{b}", "{}", "a:b"])
def test_a_checkout_that_cannot_work_says_so(tmp_path: Path, fill, snakemake, name: str) -> None:
    fill(tmp_path / name)
    done = snakemake(tmp_path / name, "-n")
    assert done.returncode != 0
    assert f"{tmp_path / name}" in done.stdout and "move it" in done.stdout
    assert "Traceback" not in done.stdout
