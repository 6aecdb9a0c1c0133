"""Sources of a backbone: hub ids and their copies, single files, damaged and foreign weights."""

import json
import logging
import shutil

import pytest
import torch
from huggingface_hub.errors import RepositoryNotFoundError
from safetensors.torch import load_file, save_file

from didgen.backbone.folder import BackboneError
from didgen.backbone.handle import Backbone
from didgen.backbone.hub import COPIES
from didgen.backbone.loading import load_tokenizer

BASE = "stabilityai/stable-diffusion-2-1-base"


class Hub:
    """Stands for the hub: repositories by name, and the requests that came."""

    def __init__(self, folders):
        self.folders, self.asked = folders, []

    def __call__(self, name, revision=None, local_files_only=False, **patterns):
        self.asked.append((name, revision, local_files_only))
        if name not in self.folders:
            raise OSError(f"404: {name} is not there\nmore lines")
        return str(self.folders[name])


@pytest.fixture
def hub(monkeypatch):
    def install(folders):
        found = Hub(folders)
        monkeypatch.setattr("huggingface_hub.snapshot_download", found)
        return found

    return install


def test_a_repository_that_left_the_hub_is_replaced_by_a_copy(hub, saved, miniature, caplog):
    caplog.set_level(logging.INFO)
    asked = hub({COPIES[BASE][1]: saved})
    opened = Backbone.load(BASE, revision="abc", local_files_only=True)
    assert opened.checksum() == miniature.checksum()
    assert asked.asked == [(name, "abc", True) for name in (BASE, *COPIES[BASE])]
    assert f"{COPIES[BASE][1]} at commit {saved.name}, a copy of {BASE}" in caplog.text


def test_a_repository_that_is_there_is_taken_itself(hub, saved):
    asked = hub({BASE: saved, COPIES[BASE][0]: saved})
    load_tokenizer(BASE)
    assert [name for name, *_ in asked.asked] == [BASE]


def test_what_was_tried_is_told_where_nothing_can_be_had(hub):
    hub({})
    with pytest.raises(BackboneError, match=r"(?s)revision abc.*404: stabilityai.*404: sd2-comm"):
        Backbone.load(BASE, revision="abc")
    with pytest.raises(BackboneError, match="cache \\(offline\\)"):
        load_tokenizer("someone/else", local_files_only=True)
    assert issubclass(RepositoryNotFoundError, OSError)


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".bin"])
def test_pickled_checkpoints_are_not_even_opened(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(BackboneError, match="can run code; convert it to .safetensors"):
        Backbone.load(path)


def test_damaged_weights_are_named(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "copy")
    path = tmp_path / "copy/unet/diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(BackboneError, match="cannot open .*copy"):
        Backbone.load(tmp_path / "copy")


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_weights_that_lack_a_layer_are_refused(saved, tmp_path, part):
    shutil.copytree(saved, tmp_path / "copy")
    path = next((tmp_path / "copy" / part).glob("*.safetensors"))
    tensors = load_file(path)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(BackboneError, match="1 of its weights are missing"):
        Backbone.load(tmp_path / "copy")


@pytest.mark.parametrize("part", ["unet", "text_encoder", "vae"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named_when_they_are_opened(saved, tmp_path, part, value):
    shutil.copytree(saved, tmp_path / "copy")
    path = next((tmp_path / "copy" / part).glob("*.safetensors"))
    tensors = load_file(path)
    name = next(name for name in sorted(tensors) if tensors[name].is_floating_point())
    tensors[name].view(-1)[-1] = value
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(BackboneError, match=f"{part}: 1 of its weights hold NaN.*{name}"):
        Backbone.load(tmp_path / "copy")


@pytest.mark.parametrize(
    "name",
    [
        "vae/config.json",
        "text_encoder/config.json",
        "unet/config.json",
        "tokenizer/tokenizer_config.json",
        "scheduler/scheduler_config.json",
    ],
)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "found a JSON list, expected an object"),
        ('"a"', "found a JSON str"),
        ("", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON .*recursion"),
    ],
)
def test_a_configuration_that_is_no_object_is_named(saved, tmp_path, name, text, words):
    shutil.copytree(saved, tmp_path / "copy")
    (tmp_path / "copy" / name).write_text(text)
    with pytest.raises(BackboneError, match=f"{name}: {words}"):
        Backbone.load(tmp_path / "copy")


@pytest.mark.parametrize(
    ("name", "key", "value", "words"),
    [
        ("scheduler/scheduler_config.json", "_class_name", "Nothing", "'Nothing'"),
        ("scheduler/scheduler_config.json", "_class_name", "AutoencoderKL", "'AutoencoderKL'"),
        ("scheduler/scheduler_config.json", "_class_name", "__name__", "'__name__'"),
        ("scheduler/scheduler_config.json", "num_train_timesteps", 0, "cannot open .*copy"),
        ("text_encoder/config.json", "hidden_size", -1, "cannot open .*copy"),
        ("unet/config.json", "sample_size", None, "sample_size is None"),
        ("unet/config.json", "sample_size", [16, 16], r"sample_size is \[16, 16\]"),
        ("unet/config.json", "sample_size", -1, "sample_size is -1"),
        ("vae/config.json", "scaling_factor", None, "scaling_factor is None"),
        ("vae/config.json", "scaling_factor", 0, "scaling_factor is 0"),
    ],
)
def test_values_that_no_backbone_has_are_named(saved, tmp_path, name, key, value, words):
    shutil.copytree(saved, tmp_path / "copy")
    path = tmp_path / "copy" / name
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(BackboneError, match=words):
        Backbone.load(tmp_path / "copy")


def test_a_folder_without_a_configuration_is_named(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "copy")
    (tmp_path / "copy/unet/config.json").unlink()
    with pytest.raises(BackboneError, match="copy lacks unet/config.json"):
        Backbone.load(tmp_path / "copy")


def test_a_missing_file_and_a_foreign_file_are_named(tmp_path):
    with pytest.raises(BackboneError, match="there is no file"):
        Backbone.load(tmp_path / "absent.safetensors")
    save_file({"classifier.weight": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(BackboneError, match="found 1 tensors .*expected a checkpoint of Stable"):
        Backbone.load(tmp_path / "other.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00")
    with pytest.raises(BackboneError, match="not a whole"):
        Backbone.load(tmp_path / "cut.safetensors")
