"""What every setting refuses: numbers without bounds, home folders taken for names, NUL."""

import typing
from pathlib import Path

import pytest
from annotated_types import Ge, Gt, Le, Lt
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from didgen import cli
from didgen.settings.base import Place
from didgen.settings.run import RunConfig

MODELS = (RunConfig, *(cli.settings_of(name) for name in cli.STAGES | cli.TOOLS))


def parts(annotation, metadata=()):
    """Every plain type of an annotation with the constraints that apply to it."""
    if typing.get_origin(annotation) is typing.Annotated:
        inner, *more = typing.get_args(annotation)
        more = [
            m for item in more for m in (item.metadata if isinstance(item, FieldInfo) else [item])
        ]
        yield from parts(inner, (*metadata, *more))
    elif typing.get_args(annotation):
        for inner in typing.get_args(annotation):
            yield from parts(inner, metadata)
    else:
        yield annotation, metadata


FIELDS = {
    f"{model.__module__.rpartition('.')[2]}.{name}": field
    for model in MODELS
    for name, field in model.model_fields.items()
}


@pytest.mark.parametrize("name", FIELDS)
def test_every_number_has_both_bounds(name):
    field = FIELDS[name]
    for kind, metadata in parts(field.annotation, field.metadata):
        if kind in (int, float):
            assert any(isinstance(m, Ge | Gt) for m in metadata), "no lower bound"
            assert any(isinstance(m, Le | Lt) for m in metadata), "no upper bound"


@pytest.mark.parametrize(
    "values",
    [
        {"classify": {"learning_rate": float("inf")}},
        {"pairs": {"eta": float("nan")}},
        {"classify": {"batch_size": 1_000_000}},
        {"images": {"batch_size": 1_000_000}},
        {"finetune": {"batch_size": 1_000_000}},
        {"seeds": [-1]},
        {"seeds": [2**32]},
        {"seeds": list(range(10_000))},
        {"seed": 10**400},
        {"segment": {"decoder_channels": [0, 1, 1, 1, 1]}},
        {"run": ".."},
        {"run": "."},
        {"run": ".git"},
        {"run": "-rf"},
        {"run": "a/b"},
        {"run": "a\n"},
        {"run": "x" * 300},
        {"run": "ä" * 61},
        {"arms": ["original", "synthetic", "a" * 300]},
    ],
    ids=str,
)
def test_absurd_values_are_refused(values):
    with pytest.raises(ValidationError):
        RunConfig.model_validate(values)


def test_a_run_may_have_letters_of_any_language_and_dots():
    for name in ("isic2018-mini", "v1.2_b", "läsion"):
        assert RunConfig(run=name).run == name


(BY_PATH,) = Place.__metadata__
# Keys that hold a path, or may; `data.archives` is one by its type.
PLACES = (
    "mirror", "data.mirror", "data.folder", "data.table", "data.archives", "caption.model",
    "caption.mmproj", "caption.text_model", "caption.cache", "finetune.backbone",
    "classify.weights", "segment.weights", "fidelity.inception_weights", "fidelity.dinov2_weights",
    "fidelity.lpips_weights",
)  # fmt: skip
USED_BY = {"data.table": {"source": "table"}, "data.folder": {"source": "folder"},
           "data.mirror": {"source": "isic2018"}, "caption.model": {"mmproj": "b"},
           "caption.mmproj": {"model": "a"}}  # fmt: skip


def config_with(key, value):
    section, _, name = key.rpartition(".")
    values = {name: value} | USED_BY.get(key, {})
    if key == "mirror":
        return RunConfig.model_validate({"mirror": value, "data": {"source": "isic2018"}})
    return RunConfig.model_validate({section: values} if section else values)


@pytest.mark.parametrize("key", PLACES)
def test_a_tilde_is_the_home_folder(key, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    config = config_with(key, "~/isic")
    for name in key.split("."):
        config = getattr(config, name)
    assert str(config) == "/home/me/isic"


@pytest.mark.parametrize("key", PLACES)
@pytest.mark.parametrize(
    ("value", "expected"),
    [("a\0b", "no NUL character"), ("~nobody-of-this-name/a", "no such user's home folder"),
     ("a/" + "x" * 300, "255 bytes"), (" ", "expected a path or a name")],
)  # fmt: skip
def test_what_no_file_system_takes_is_refused(key, value, expected):
    with pytest.raises(ValidationError, match=expected):
        config_with(key, value)


def test_the_list_of_places_is_whole():
    found = set()
    for section, field in RunConfig.model_fields.items():
        keys = getattr(field.annotation, "model_fields", {section: field})
        for name, key in keys.items():
            kinds = list(parts(key.annotation, key.metadata))
            if any(kind is Path or BY_PATH in metadata for kind, metadata in kinds):
                found.add(name if name == section else f"{section}.{name}")
    assert found == set(PLACES)


def test_paths_of_a_stage_have_a_home_too(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    config = cli.settings_of("filter")(pairs=["~/a", "b"], segmenter="~/s", out="~")
    assert config.pairs == (Path("/home/me/a"), Path("b"))
    assert (config.segmenter, config.out) == (Path("/home/me/s"), Path("/home/me"))
