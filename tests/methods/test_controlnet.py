"""ControlNet: its size, that it adds nothing at first, exact resumption, training to sample."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

import didgen
from didgen.backbone.handle import Backbone
from didgen.methods import controlnet
from didgen.methods.controlnet import Controlled, build, control
from didgen.runtime.files import write_png
from didgen.settings.train import Config
from didgen.tiny.architecture import MINIATURE
from didgen.tiny.architecture import build as build_backbone
from didgen.training.loop import TrainingStopped
from tests.methods import conditioned

ARCHITECTURES = Path(didgen.__file__).parent / "backbone/architectures"
FINETUNE = {
    "steps": 4,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "warmup_steps": 2,
    "checkpoint_every": 2,
    "precision": "float32",
}
WEIGHTS = "controlnet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A fine-tuned backbone and six images, of which the last has no mask."""
    place = tmp_path_factory.mktemp("controlnet")
    conditioned.backbone().save(place / "backbone")
    rng = np.random.default_rng(0)
    for n in range(6):
        write_png(place / f"{n}.png", rng.integers(0, 255, (128, 128, 3), dtype=np.uint8))
        write_png(place / f"{n}-mask.png", conditioned.disk(40 + 8 * n))
    return place


def images(folder):
    rows = [
        {
            "id": str(n),
            "image": folder / f"{n}.png",
            "mask": folder / f"{n}-mask.png" if n < 5 else None,
            "label": "MEL",
            "caption": f"melanoma, number {n}, on the left",
        }
        for n in range(6)
    ]
    return pd.DataFrame(rows)


def settings_of(folder, out, own=None, finetune=None, **changes):
    values = {
        "train": folder / "train.csv",
        "captions": folder / "captions.csv",
        "backbone": folder / "backbone",
        "out": out,
        "state": out.parent / f"{out.name}-state",
        "finetune": {**FINETUNE, **(finetune or {})},
    }
    return Config(method="controlnet", own=own, **values | changes)


def trained(folder, out, **changes):
    controlnet.train(images(folder), settings_of(folder, out, **changes))
    return load_file(out / WEIGHTS)


@pytest.fixture(scope="module")
def model(folder):
    """A method's folder, trained for four steps."""
    trained(folder, folder / "model")
    return folder / "model"


def opened(folder, model, own=None, **changes):
    values = {"backbone": folder / "backbone", **changes}
    config = conditioned.config("controlnet", folder, own, **values)
    return controlnet.load(model, config, "cpu")


def test_it_has_the_known_number_of_weights_at_full_size():
    with torch.device("meta"):
        config = UNet2DConditionModel.load_config(ARCHITECTURES / "sd21-base/unet")
        unet = UNet2DConditionModel.from_config(config)
        network = build(SimpleNamespace(unet=unet, downsampling=8), seed=0)
    assert sum(p.numel() for p in unet.parameters()) == 865_910_724
    assert sum(p.numel() for p in network.parameters()) == 364_228_240
    embedding = network.controlnet_cond_embedding
    assert sum(p.numel() for p in embedding.parameters()) == 1_086_480
    assert [block.out_channels for block in embedding.blocks] == [16, 32, 32, 96, 96, 256]


def test_it_adds_nothing_before_it_is_trained():
    backbone = conditioned.backbone()
    masks = torch.from_numpy(np.stack([conditioned.disk(), conditioned.disk(70)]))[:, None].float()
    latents = torch.randn(2, 4, 32, 32)
    with torch.no_grad():
        embeddings = backbone.embed(["An image of <lesion> on <skin>."] * 2)
        plain = backbone.predict(latents, torch.tensor(500), embeddings)
        controlled = control(backbone, build(backbone, 0), masks)
        assert torch.equal(controlled.predict(latents, torch.tensor(500), embeddings), plain)


def test_its_first_weights_follow_from_the_seed():
    backbone = conditioned.backbone()
    before = torch.random.get_rng_state()
    first, again, other = (build(backbone, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    name = "controlnet_cond_embedding.conv_in.weight"
    assert not torch.equal(first[name], other[name])
    encoder = backbone.unet.state_dict()
    assert torch.equal(first["conv_in.weight"], encoder["conv_in.weight"])


def test_the_condition_is_the_mask_in_three_channels_from_0_to_1():
    backbone = conditioned.backbone()
    network = build(backbone, 0)
    seen = []
    network.controlnet_cond_embedding.register_forward_pre_hook(
        lambda module, given: seen.append(given[0])
    )
    masks = torch.from_numpy(np.stack([conditioned.disk(), conditioned.disk(70)]))[:, None].float()
    with torch.no_grad():
        embeddings = backbone.embed([""] * 4)
        # Two images, each without and with a prompt.
        control(backbone, network, masks).predict(torch.randn(4, 4, 32, 32), 500, embeddings)
    assert torch.equal(seen[0], masks.expand(-1, 3, -1, -1).repeat(2, 1, 1, 1))
    assert set(seen[0].unique().tolist()) == {0.0, 1.0}


def test_nothing_but_the_controlnet_gets_a_gradient(folder, tmp_path, monkeypatch):
    real_step, seen = controlnet.Step.__call__, []

    def watched(self, step):
        row = real_step(self, step)
        frozen = [p for module in self.backbone.modules() for p in module.parameters()]
        seen.append((any(p.requires_grad or p.grad is not None for p in frozen),
                     self.backbone.checksum()))  # fmt: skip
        return row

    monkeypatch.setattr(controlnet.Step, "__call__", watched)
    trained(folder, tmp_path / "model")
    assert set(seen) == {(False, Backbone.load(folder / "backbone").checksum())}


def test_training_leaves_the_backbone_alone_and_says_what_it_was(folder, model):
    before = Backbone.load(folder / "backbone")
    untrained, weights = build(before, 0).state_dict(), load_file(model / WEIGHTS)
    assert untrained.keys() == weights.keys()
    moved = {name for name in weights if not torch.equal(weights[name], untrained[name])}
    assert "controlnet_mid_block.weight" in moved and "mid_block.resnets.0.conv1.weight" in moved
    assert json.loads((model / "backbone.json").read_text()) == {"checksum": before.checksum()}
    budget = json.loads((model / "budget.json").read_text())
    assert budget["parameters"] == sum(value.numel() for value in weights.values())
    assert (budget["steps"], budget["images"]) == (4, 16) and budget["departures"]
    curve = pd.read_csv(model / "training.csv")
    assert curve["step"].tolist() == [1, 2, 3, 4] and curve["lr"].tolist() == [5e-4] + [1e-3] * 3
    assert curve["loss"].between(0.1, 10).all()
    assert json.loads((model / "config.json").read_text())["method"] == "controlnet"


def test_an_image_without_a_mask_is_left_out(folder, tmp_path, model):
    controlnet.train(images(folder).head(5), settings_of(folder, tmp_path / "m"))
    found, expected = load_file(tmp_path / "m" / WEIGHTS), load_file(model / WEIGHTS)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_an_interrupted_training_ends_as_an_undisturbed_one(folder, tmp_path, model, monkeypatch):
    real = controlnet.Step.__call__

    def stopping(self, step):
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, step)

    monkeypatch.setattr(controlnet.Step, "__call__", stopping)
    out = tmp_path / "m"
    with pytest.raises(TrainingStopped):
        trained(folder, out)
    monkeypatch.undo()
    assert not out.exists()
    (place,) = (tmp_path / "m-state").glob("controlnet-*")
    assert [part.name for part in place.glob("step-*")] == ["step-0000003"]
    found = trained(folder, out)
    assert (out / WEIGHTS).read_bytes() == (model / WEIGHTS).read_bytes()
    assert found.keys() == load_file(model / WEIGHTS).keys()
    curves = [pd.read_csv(place / "training.csv") for place in (out, model)]
    assert curves[0].drop(columns="seconds").equals(curves[1].drop(columns="seconds"))


def test_passes_and_processes_change_nothing_beyond_rounding(folder, tmp_path, model):
    expected = load_file(model / WEIGHTS)
    changes = {"accumulation": 2, "processes": 2, "gradient_checkpointing": True}
    found = trained(folder, tmp_path / "m", finetune=changes)
    assert all(torch.allclose(found[name], expected[name], atol=2e-3) for name in expected)


def test_mirror_images_come_with_mirrored_masks(folder):
    settings = settings_of(folder, folder / "x").finetune
    items = [controlnet.TrainingItem("0", folder / "0.png", folder / "0-mask.png", "")]
    backbone = Backbone.load(folder / "backbone")
    step = controlnet.Step(backbone, None, None, None, items, settings, 0, "float32")
    masks = step.masks(np.array([0, 1]))
    assert masks.shape == (2, 1, 128, 128)
    assert torch.equal(masks[0, 0].bool(), torch.from_numpy(conditioned.disk(40)))
    assert torch.equal(masks[1], masks[0].flip(-1))


def test_empty_prompts_are_its_own_share(folder, tmp_path, monkeypatch):
    real, drawn = controlnet.draw, []

    def draw(cache, prefix, settings, *given):
        draws = real(cache, prefix, settings, *given)
        drawn.extend((draws.prompt_rows == cache.fixed_rows[""]).tolist())
        assert not (draws.prompt_rows == cache.fixed_rows[prefix]).any()
        return draws

    monkeypatch.setattr(controlnet, "draw", draw)
    quick = {"steps": 1, "prefix_only": 0.9}
    trained(folder, tmp_path / "none", own={"prompt_dropout": 0.0}, finetune=quick)
    assert drawn == [False] * 4
    trained(folder, tmp_path / "all", own={"prompt_dropout": 1.0}, finetune=quick)
    assert drawn == [False] * 4 + [True] * 4


def test_samples_follow_the_mask_and_not_their_neighbours(folder, model):
    synthesizer = opened(folder, model)
    one, two, three = (conditioned.request(seed) for seed in range(3))
    (first, second), (other, again) = (
        synthesizer.synthesize(pair) for pair in ([one, two], [three, one])
    )
    assert np.array_equal(first.image, again.image)
    assert not np.array_equal(first.image, second.image)
    assert not np.array_equal(first.image, other.image)
    assert np.array_equal(first.mask, one.mask) and not first.failure
    moved = replace(one, mask=conditioned.disk(80))
    elsewhere = synthesizer.synthesize([moved, two])[0]
    assert not np.array_equal(elsewhere.image, first.image)
    assert np.array_equal(elsewhere.mask, moved.mask)
    assert isinstance(synthesizer.sampled([one]), Controlled)


def test_the_mask_can_be_read_in_the_image(folder, model):
    request = conditioned.request(0)
    (asked,) = opened(folder, model).synthesize([request])
    (read,) = opened(folder, model, {"label": "read"}).synthesize([request])
    assert np.array_equal(asked.image, read.image)
    assert not np.array_equal(read.mask, request.mask) and "contrast" in read.scores


def test_half_precision_samples_too(folder, model):
    synthesizer = opened(folder, model, precision="bfloat16", steps=1)
    (made,) = synthesizer.synthesize([conditioned.request(0)])
    (full,) = opened(folder, model, steps=1).synthesize([conditioned.request(0)])
    assert synthesizer.controlnet.mid_block.resnets[0].conv1.weight.dtype == torch.bfloat16
    assert np.abs(made.image.astype(int) - full.image.astype(int)).mean() < 20


def test_another_backbone_is_refused(folder, model, tmp_path):
    backbone = conditioned.backbone()
    with torch.no_grad():
        backbone.unet.conv_in.bias.add_(1)
    backbone.save(tmp_path / "other")
    with pytest.raises(ValueError, match="found a ControlNet of the backbone"):
        opened(folder, model, backbone=tmp_path / "other")
    with pytest.raises(ValueError, match="found no backbone, expected the one"):
        opened(folder, model, backbone=None)


def test_the_digest_is_of_both_networks(folder, model, tmp_path):
    trained(folder, tmp_path / "m", finetune={"steps": 2})
    digests = {opened(folder, place).checkpoint for place in (model, tmp_path / "m")}
    assert len(digests) == 2 and all(len(digest) == 16 for digest in digests)


@pytest.mark.parametrize("damage", ["weights", "base", "half", "config"])
def test_broken_folders_are_refused(folder, model, tmp_path, damage):
    place = tmp_path / "m"
    (place / "controlnet").mkdir(parents=True)
    for name in (WEIGHTS, "controlnet/config.json", "backbone.json"):
        (place / name).write_bytes((model / name).read_bytes())
    if damage == "weights":
        (place / WEIGHTS).write_bytes(b"no weights")
    elif damage == "base":
        (place / "backbone.json").write_text("[]")
    elif damage == "half":
        tensors = load_file(place / WEIGHTS)
        save_file(dict(list(tensors.items())[::2]), place / WEIGHTS)
    else:
        (place / "controlnet/config.json").unlink()
    with pytest.raises(ValueError, match="no trained ControlNet .*train the method again"):
        opened(folder, place)


def test_what_cannot_be_trained_is_refused_first(folder, tmp_path):
    data = images(folder)
    with pytest.raises(ValueError, match="found no image with a mask among 1"):
        controlnet.train(data.tail(1), settings_of(folder, tmp_path / "m"))
    with pytest.raises(ValueError, match="found no backbone, expected the fine-tuned one"):
        controlnet.train(data, settings_of(folder, tmp_path / "m", backbone=None))
    build_backbone(MINIATURE, seed=0).save(tmp_path / "plain")
    with pytest.raises(ValueError, match="<skin>' does not occur"):
        controlnet.train(data, settings_of(folder, tmp_path / "m", backbone=tmp_path / "plain"))
    write_png(tmp_path / "small.png", np.zeros((64, 64, 3), np.uint8))
    small = data.head(1).assign(image=tmp_path / "small.png")
    with pytest.raises(ValueError, match="found 64x64 px, expected 128x128"):
        controlnet.train(small, settings_of(folder, tmp_path / "m"))
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("own", [{"prompt_dropout": 2}, {"preset": "huge"}, {"label": "drawn"}])
def test_bad_settings_are_refused(folder, tmp_path, own):
    with pytest.raises(ValueError, match=next(iter(own))):
        settings_of(folder, tmp_path / "m", own=own)
