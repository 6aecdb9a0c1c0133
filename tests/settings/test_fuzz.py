"""Any value for any key: a clear refusal or a configuration that can be used, and no file written.

Time is bounded by the number of examples; a failure prints the smallest one.
"""

import datetime
import importlib
import json
import types
from pathlib import Path

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from didgen import cli
from didgen.settings.pairs import Settings as PairSettings
from didgen.settings.run import RunConfig

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = jsonschema.Draft202012Validator(
    json.loads((ROOT / "workflow/schemas/config.schema.json").read_text())
)
QUICK = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SECTIONS = {
    name: field.annotation
    for name, field in RunConfig.model_fields.items()
    if hasattr(field.annotation, "model_fields")
} | {"pairs": PairSettings}
KEYS = [(name,) for name in RunConfig.model_fields if name not in SECTIONS]
KEYS += [(name, key) for name, kind in SECTIONS.items() for key in kind.model_fields]
KEYS += [(name,) for name in SECTIONS]

# What breaks programs; each is tried for each key.
HOSTILE_TEXTS = (
    "", " ", "..", ".", "/", "~", "~x/y", "../../etc", "a/../..", "a\0b", "\x1b[2J", "$(touch F)",
    "`id`", "{run}", "{{}}", "%s", "x" * 300, "x" * 5000, "ä" * 200, "\u202e", "\ud800", "-rf",
    "null", "true", "1e999", "nan", "tiny", "hub", "a\nb", "😀", "http://u:p@h", "synthetic",
)  # fmt: skip
HOSTILE = (
    *HOSTILE_TEXTS, None, True, False, 0, 1, -1, 0.5, 10**6, 2**31, 2**63, 10**400, -(10**400),
    1e308, 5e-324, float("inf"), float("-inf"), float("nan"), [], {}, [[]], [None], [-1], [1, 1],
    [".."], ["a\0b"], ["x" * 300], [float("inf")], list(range(2000)), {"a": 1}, {"": None},
    {"..": {"metadata": ".."}}, {1: 2}, {None: None}, {"a\0": "b"}, {True: "MEL"}, b"a",
    datetime.date(2026, 1, 1),
)  # fmt: skip
TEXTS = st.text(max_size=30) | st.sampled_from(HOSTILE_TEXTS)
NUMBERS = st.integers() | st.floats()
PLAIN = st.none() | st.booleans() | NUMBERS | TEXTS
# YAML has dates too, and any scalar for a key.
VALUES = st.recursive(
    PLAIN | st.dates() | st.datetimes() | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(PLAIN | st.dates(), inner, max_size=4)
    ),
    max_leaves=6,
)


def changed(changes):
    """A configuration with these values at these keys; a section that is none stays one."""
    config = {}
    for keys, value in changes:
        if len(keys) == 1:
            config[keys[0]] = value
        elif isinstance(config.setdefault(keys[0], {}), dict):
            config[keys[0]][keys[1]] = value
    return config


def assert_usable(config):
    """What an accepted configuration promises to the workflow."""
    plain = config.model_dump(mode="json")
    SCHEMA.validate(plain)
    assert RunConfig.model_validate(json.loads(json.dumps(plain))) == config
    results = Path("results").resolve()
    run = Path("results") / config.run
    assert run.resolve().parent == results
    for arm in config.arms:
        assert (run / "classify" / arm / "seed0").resolve().is_relative_to(run.resolve())
        assert len(f"{arm}-seed{2**31}.log".encode()) <= 255
    assert len(config.run.encode()) <= 255
    for text in texts(plain):
        assert len(text) <= 4096 and "\0" not in text


def texts(value):
    """Every text in a configuration but the user's own words."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in ("labels", "columns"):
                yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)
    elif isinstance(value, str):
        yield value


def assert_explained(error):
    """The refusal as the user reads it: a line for each fault, nothing that steers a terminal."""
    lines = cli.explain(error).split("\n")
    assert len(lines) == error.error_count()
    assert all(line.isprintable() and len(line) < 2000 for line in lines), lines


def assert_refused_or_usable(changes):
    try:
        config = RunConfig.model_validate(changed(changes))
    except ValidationError as error:
        assert_explained(error)
    else:
        assert_usable(config)


@pytest.mark.parametrize("keys", KEYS, ids=".".join)
def test_any_value_of_one_key_is_refused_or_usable(keys):
    for value in HOSTILE:
        assert_refused_or_usable([(keys, value)])

    @settings(QUICK, max_examples=15)
    @given(value=VALUES)
    def try_out(value):
        assert_refused_or_usable([(keys, value)])

    try_out()


@settings(QUICK, max_examples=200)
@given(
    changes=st.lists(
        st.tuples(st.sampled_from(KEYS) | st.tuples(TEXTS) | st.tuples(TEXTS, TEXTS), VALUES),
        min_size=1,
        max_size=5,
    )
)
def test_any_values_of_several_keys_are_refused_or_usable(changes):
    assert_refused_or_usable(changes)


def as_json(value):
    """What a rule or a user can write on a command line."""
    if isinstance(value, dict):
        return {str(key): as_json(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [as_json(inner) for inner in value]
    return str(value) if isinstance(value, bytes | datetime.date) else value


@pytest.fixture
def quiet_stages(monkeypatch, tmp_path):
    """Stages that do nothing, in an empty folder: only what leads to them is tried."""
    real = importlib.import_module

    def load(name, package=None):
        if name.startswith("didgen.stages."):
            return types.SimpleNamespace(run=lambda config: None)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", load)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", [*cli.STAGES, *cli.TOOLS])
def test_any_settings_of_a_stage_run_it_or_end_with_2(name, quiet_stages, caplog):
    fields = list(cli.settings_of(name).model_fields)
    required = [k for k, field in cli.settings_of(name).model_fields.items() if field.is_required()]

    @settings(QUICK, max_examples=25)
    @given(
        values=st.dictionaries(st.sampled_from(fields) | TEXTS, VALUES, max_size=4),
        flags=st.dictionaries(st.sampled_from(fields), TEXTS | NUMBERS.map(str), max_size=2),
    )
    def try_out(values, flags):
        caplog.clear()
        given = dict.fromkeys(required, "x") | as_json(values)
        arguments = [name, "--settings", json.dumps(given)]
        for key, value in flags.items():
            arguments += [f"--{key.replace('_', '-')}={value}"]
        try:
            code = cli.main(arguments)
        except SystemExit as stop:  # argparse
            code = stop.code
        assert code in (0, 2)
        assert "Traceback" not in caplog.text

    try_out()
    assert not list(quiet_stages.iterdir())
